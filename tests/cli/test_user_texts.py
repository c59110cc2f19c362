"""Names of classes and files are texts: no markup of rich, HTML or matplotlib."""

import html
import json

import pytest

from tests.cli.conftest import write_scenes

CLASSES = ("[/b]", r"$\frac{$ <i>x</i>", ":smile: [red]a[/]")
FILE = r"[b] $\frac{$ <b>&amp;"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A source folder whose classes and a file have odd names; and a place for runs."""
    folder = tmp_path_factory.mktemp("odd")
    source = write_scenes(folder / "[b] source", count=12)
    (source / "classes.txt").write_text("\n".join(CLASSES))
    for kind in ("images", "masks"):
        (source / kind / "03.png").rename(source / kind / f"{FILE}.png")
    return folder


@pytest.mark.slow
def test_all_commands_print_names_as_they_are(segjax, script, place):
    source, run = place / "[b] source", place / "[b] $x$"
    flags = ("--source", source, "--steps", 4, "--batch-size", 4, "--width", 4)
    got = segjax("train", script, *flags, "--run", run)
    assert got.code == 0, got.err
    got = segjax("evaluate", run, "--split", "train")
    assert got.code == 0, got.err
    for name in (*CLASSES, "[b] $x$: train"):
        assert name in got.out
    report = (run / "report.html").read_text()
    for name in CLASSES:
        assert html.escape(name) in report.replace("&#34;", "&quot;")
    assert "<i>x</i>" not in report
    got = segjax("inspect", run, "--top", 12)
    assert got.code == 0, got.err
    assert FILE[:4] in got.out
    page = (run / "inspection-train-best.html").read_text()
    assert "<b>&amp;" not in page
    got = segjax("calibrate", run)
    assert got.code == 0, got.err
    got = segjax("predict", run, source / "images", "--out", place / "out", "--objects")
    assert got.code == 0, got.err
    assert (place / "out" / f"{FILE}_overlay.png").is_file()
    found = json.loads((place / "out/objects.json").read_text())
    assert [x["name"] for x in found["categories"]] == list(CLASSES)
    broken = place / f"{FILE} broken.png"
    broken.write_bytes(b"no picture")
    got = segjax("predict", run, broken, "--out", place / "broken")
    assert got.code == 1
    assert str(broken) in got.err
