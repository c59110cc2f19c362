"""`segjax data show`: the report, and what it prints."""

import base64
import html
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from segjax.cli import data_findings
from tests.cli.conftest import expect_one_error_line, write_scenes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_scenes(tmp_path / "mine", count=12)


def test_report_of_a_folder(segjax, folder, tmp_path):
    got = segjax("data", "show", folder)
    assert got.code == 0, got.err
    page = (tmp_path / "mine-data.html").read_text()
    text = html.unescape(re.sub("<[^>]+>", " ", page))
    for word in ("background", "square", "bar", "uint8 x 3", "Intensities", "U-Net"):
        assert word in text, word
    assert page.count("<figure>") == 12 + 12  # All images, and training crops.
    assert "Training crops" in text
    # Nothing is loaded from anywhere.
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "http://" not in page
    assert "https://" not in page


SCRIPT = """
import optax
from segjax import data, losses, metrics, models, train

def experiment(*, {more}source, seed: int = 0):
    mine = data.folder(source)
    return train.Experiment(
        config=train.TrainConfig(steps=1, batch_size=2, seed=seed),
        data=data.Pipeline(dataset=mine, size=(16, 24)),
        augment=data.augment.horizontal_flip,
        model=models.SimpleCNN(len(mine.classes)),
        objective=losses.semantic(ce=(1.0, losses.cross_entropy)),
        optimizer=optax.sgd(0.1),
        metric=metrics.semantic(mine.classes),
    )
"""


def test_crops_of_a_script(segjax, folder, tmp_path):
    script, out = tmp_path / "mine.py", tmp_path / "report.html"
    script.write_text(SCRIPT.format(more=""))
    got = segjax("data", "show", folder, "--experiment", script, "--out", out)
    assert got.code == 0, got.err
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', out.read_text())
    sizes = [Image.open(io.BytesIO(base64.b64decode(x))).size for x in pictures]
    assert sizes[-12:] == [(24, 16)] * 12
    script.write_text(SCRIPT.format(more="").replace("24)", "24), max_objects=3"))
    got = segjax("data", "show", folder, "--experiment", script, "--out", out)
    assert got.code == 0, got.err
    assert (
        "Training crops cannot be drawn: This needs a data set with objects" in got.err
    )
    assert "Training crops" not in out.read_text()
    script.write_text(SCRIPT.format(more="depth, "))
    got = segjax("data", "show", folder, "--experiment", script, "--out", out)
    expect_one_error_line(got, "needs --depth, which segjax data show does not pass")


def test_planted_leak_is_printed_and_drawn(segjax, folder, tmp_path):
    splits = tmp_path / "split"
    for split, numbers in (("train", range(8)), ("validation", (8, 9, 3))):
        for kind in ("images", "masks"):
            (splits / split / kind).mkdir(parents=True)
            for i in numbers:
                place = splits / split / kind / f"{split}{i:02d}.png"
                shutil.copy(folder / kind / f"{i:02d}.png", place)
    out = tmp_path / "report.html"
    got = segjax("data", "show", splits, "--out", out)
    assert got.code == 0, got.err
    line = got.out.splitlines()[0]
    assert line.startswith("- 1 image is in two splits (1 equal, 0 nearly): ")
    assert "train03 (train) and validation03 (validation)" in line
    assert "The same image in two splits" in out.read_text()


def test_names_are_not_markup(segjax, folder, tmp_path):
    (folder / "classes.txt").write_text("[/b]\n<i>\n$x_1$\n")
    got = segjax("data", "show", folder)
    assert got.code == 0, got.err
    page = (tmp_path / "mine-data.html").read_text()
    assert "&lt;i&gt;" in page
    assert "<i></" not in page


def test_messages(segjax, folder, tmp_path):
    missing = tmp_path / "nowhere"
    expect_one_error_line(segjax("data", "show", missing), missing, "is missing")
    expect_one_error_line(segjax("data", "show", folder, "--most", "0"), "--most")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / "images/00.png")
    expect_one_error_line(segjax("data", "show", folder), "00.png")
    assert not (tmp_path / "mine-data.html").exists()


def test_directions():
    assert data_findings.direction((4, 0)) == "4 pixels down"
    assert data_findings.direction((-2, 6)) == "2 pixels up, 6 right"
    assert data_findings.direction((0, -6)) == "6 pixels left"
