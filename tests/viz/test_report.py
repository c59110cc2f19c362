import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from segjax import viz

METRICS = {
    "mean_iou": 0.87654,
    "mean_dice": 0.91234,
    "pixel_accuracy": 0.95,
    "iou/background": 0.99,
    "iou/<b>cat</b>": 0.76321,
    "iou/dog": float("nan"),
    "dice/background": 0.995,
    "dice/<b>cat</b>": 0.86567,
    "dice/dog": float("nan"),
}


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "run <1>"
    (run / "samples").mkdir(parents=True)
    records = [
        {"kind": "train", "step": 10, "loss": 0.5},
        {"kind": "eval", "step": 10, "split": "validation", "mean_iou": 0.4321},
    ]
    lines = [json.dumps(record) for record in records]
    (run / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "tr']))
    result = {"metrics": METRICS, "steps": 1500, "seed": 2024, "seconds": 3725.0}
    (run / "result.json").write_text(json.dumps(result | {"split": "test"}))
    manifest = {
        "flags": {"learning_rate": 0.001, "widths": [16, 32], "note": "<script>"},
        "devices": [{"kind": "cpu"}, {"kind": "tpu"}],
        "git": {"commit": "abc123", "patch": None},
        "empty": {},
    }
    (run / "run.json").write_text(json.dumps(manifest))
    for i in range(26):
        picture = Image.fromarray(np.full((4, 4, 3), i, np.uint8))
        picture.save(run / "samples" / f"step_{i:03}.png")
    return run


class _Page(html.parser.HTMLParser):
    """Collects the references, the tags and the text of a page."""

    def __init__(self, path):
        super().__init__()
        self.references, self.tags, self.text = [], [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        self.references += [v for k, v in attrs if k in names]

    def handle_data(self, data):
        self.text += data


def test_needs_nothing_from_outside(run):
    path = viz.write_report(run)
    page = _Page(path)
    assert path == run / "report.html"
    starts = ("#", "data:image/png;base64,")
    assert all(r.startswith(starts) for r in page.references)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    source = path.read_text()
    assert "@import" not in source
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    # Addresses remain only as names of XML namespaces.
    assert set(re.findall(r'([\w:]+)="https?://', source)) <= {"xmlns", "xmlns:xlink"}


def test_contains_the_metrics(run):
    text = _Page(viz.write_report(run)).text
    for wanted in ("0.8765", "0.9123", "0.9500", "0.7632", "0.8657", "1,500", "2024"):
        assert wanted in text
    assert "1 h 2 min" in text
    assert "mean IoU 0.432" in text  # The curve's own.
    assert "nan" not in text.lower()


def test_contains_the_manifest(run):
    text = _Page(viz.write_report(run)).text
    for wanted in ("learning_rate", "0.001", "16, 32", "abc123", "cpu", "tpu"):
        assert wanted in text


def test_names_are_escaped(run):
    page = _Page(viz.write_report(run))
    assert "<b>cat</b>" in page.text
    assert "<script>" in page.text
    assert "run <1>" in page.text
    assert "b" not in page.tags[page.tags.index("table") :]


def test_a_figure_that_is_no_number_has_no_bar(run):
    result = {"metrics": METRICS | {"iou/background": True}, "split": "test"}
    (run / "result.json").write_text(json.dumps(result))
    assert "dog" in _Page(viz.write_report(run)).text


def write_picture(path, size, **captions):
    """A PNG of noise, which cannot be compressed."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    info = PngImagePlugin.PngInfo()
    for key, value in captions.items():
        info.add_itxt(key, value)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise).save(path, pnginfo=info)


def test_large_pictures_are_shrunk_and_linked(run):
    """The largest report there is: all pictures are there, large, and noisy."""
    first = run / "samples/step_000.png"
    write_picture(first, (400, 1500), Title="field <i>7</i> \u00e4")
    for i in range(1, 26):
        shutil.copy(first, run / f"samples/step_{i:03}.png")
    captions = {"Title": "photo 12", "Description": "test, mean IoU 0.1"}
    write_picture(run / "worst/00.png", (20, 60), **captions)
    for i in range(1, 12):
        shutil.copy(first, run / f"worst/{i:02}.png")
    path = viz.write_report(run)
    assert path.stat().st_size < 3_000_000
    page = _Page(path)
    assert page.tags.count("img") == 24 + 12
    assert "field <i>7</i> \u00e4" in page.text
    assert "photo 12" in page.text
    assert "test, mean IoU 0.1" in page.text
    assert {"samples/step_025.png", "worst/11.png"} <= set(page.references)
    assert "worst/00.png" not in page.references  # It is embedded as it is.
    small = [r for r in page.references if r.startswith("data:image/jpeg;base64,")]
    for uri in small:
        content = base64.b64decode(uri.partition(",")[2])
        assert len(content) <= 48_000
        width, height = Image.open(io.BytesIO(content)).size
        assert width / height == pytest.approx(1500 / 400, rel=0.02)


def test_a_damaged_picture_is_said(run):
    (run / "samples/step_025.png").write_bytes(b"no picture")
    page = _Page(viz.write_report(run))
    assert page.tags.count("img") == 23
    assert "The picture is damaged." in page.text


def test_tiny_scores_are_as_wide_as_others(run):
    assert viz.format_score(2.374e-06) == "2.4e-06"
    assert viz.format_score(float("nan")) == viz.format_score(None) != ""
    widths = {len(viz.format_score(x)) for x in (2.374e-06, 1e-12, 0.5, 1.0)}
    assert max(widths) <= 7


def test_shows_the_last_samples(run):
    page = _Page(viz.write_report(run))
    assert page.tags.count("img") == 24
    assert "step_025" in page.text
    assert "step_001" not in page.text
    assert "The last 24 of 26." in page.text


@pytest.mark.parametrize(
    "part", ["metrics.jsonl", "result.json", "run.json", "samples"]
)
def test_missing_parts_are_left_out(run, part):
    full = _Page(viz.write_report(run)).text
    (run / part).rename(run.parent / "elsewhere")
    text = _Page(viz.write_report(run)).text
    assert len(text) < len(full)
    heading = {"metrics.jsonl": "Curves", "samples": "Samples"}
    heading |= {"result.json": "0.8765", "run.json": "How this run was made"}
    assert heading[part] in full
    assert heading[part] not in text


def test_without_a_result_the_last_evaluation_is_shown(run):
    (run / "result.json").unlink()
    page = _Page(viz.write_report(run))
    assert "0.4321" in page.text
    assert "validation" in page.text


def test_empty_folder_has_a_report(tmp_path):
    assert tmp_path.name in _Page(viz.write_report(tmp_path)).text


def test_leaves_nothing_but_the_report(run):
    before = set(run.iterdir())
    viz.write_report(run)
    viz.write_report(run)
    assert set(run.iterdir()) - before == {run / "report.html"}


def test_a_failure_keeps_the_old_report(run):
    path = viz.write_report(run)
    old = path.read_text()
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is not JSON"):
        viz.write_report(run)
    assert path.read_text() == old


def test_needs_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"needs a run folder, got .*nowhere"):
        viz.write_report(tmp_path / "nowhere")


def test_records_of_a_resumed_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"kind": "train", "step": 10, "loss": 1.0}\n'
        '{"kind": "train", "step": 20, "loss": 2.0}\n'
        '{"kind": "train", "st\n'  # Killed here, resumed from step 10.
        '{"kind": "train", "step": 20, "loss": 3.0}\n'
        '{"kind": "eval", "split": "test", "step": 20, "loss": 4.0}\n'
        "[1]\n"
    )
    records = viz.read_records(path)
    assert [r["loss"] for r in records] == [1.0, 3.0, 4.0]
    assert viz.read_records(tmp_path / "none.jsonl") == []


def test_import_is_cheap():
    code = "import sys, segjax.viz; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout == "set()\n", out.stderr
