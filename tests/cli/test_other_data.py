"""`segjax evaluate` on images that are not those of training."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import segjax as library
from tests.cli.conftest import SCRIPT, expect_one_error_line, write_scenes


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_scored(segjax, copy, tmp_path):
    other = write_scenes(tmp_path / "other", 7)
    assert segjax("evaluate", copy).code == 0
    own = {p.name: p.read_bytes() for p in copy.glob("evaluation-*")}
    # Its test split would be one image, drawn at random.
    expect_one_error_line(segjax("evaluate", copy, "--source", other), "--split", "all")
    got = segjax("evaluate", copy, "--source", other, "--split", "all")
    assert got.code == 0, got.err
    assert "other data, all, 7 images" in " ".join(got.out.split())
    (path,) = set(copy.glob("evaluation-*.json")) - {copy / name for name in own}
    found = json.loads(path.read_text())
    assert found["split"] == "all"
    assert found["examples"] == 7
    assert {row["name"] for row in rows_of(path.with_suffix(".csv"))} == {
        f"{i:02d}" for i in range(7)
    }
    # An independent way to the same score: the model's label maps, counted by NumPy.
    model, right, count = library.load(copy), 0, 0
    for i in range(7):
        image, mask = (
            np.asarray(Image.open(other / f"{kind}/{i:02d}.png"))
            for kind in ("images", "masks")
        )
        right += np.sum(model.predict(image).labels == mask)
        count += np.sum(mask != 255)
    assert found["metrics"]["pixel_accuracy"] == pytest.approx(right / count, abs=1e-6)
    # What `segjax compare` reads is still of the run's own images.
    assert {name: (copy / name).read_bytes() for name in own} == own


def test_data_that_moved_are_the_same(segjax, copy, source, tmp_path):
    moved = shutil.copytree(source, tmp_path / "moved")
    got = segjax("evaluate", copy, "--source", moved)
    assert got.code == 0, got.err
    assert "other data" not in got.out


def test_data_with_other_crops_are_the_same(segjax, source, tmp_path):
    text = SCRIPT.replace("steps: int = 30", "steps: int = 1, size: int = 16")
    text = text.replace("size=16)", "size=size)")
    text = text.replace(
        "        seed: Seeds", "        size: Of crops.\n        seed: Seeds"
    )
    (tmp_path / "sizes.py").write_text(text)
    run = tmp_path / "run"
    got = segjax("train", tmp_path / "sizes.py", "--source", source, "--run", run)
    assert got.code == 0, got.err
    got = segjax("evaluate", run, "--size", "12")
    assert got.code == 0, got.err
    assert "other data" not in got.out


def test_all_of_the_runs_own_data_has_the_images_of_training(segjax, copy):
    got = segjax("evaluate", copy, "--split", "all")
    assert got.code == 0, got.err
    assert "with the images of training" in " ".join(got.out.split())
    assert len(rows_of(copy / "evaluation-all-best.csv")) == 30


def test_classes_that_differ_are_said(segjax, copy, tmp_path):
    other = write_scenes(tmp_path / "other", 4)
    flags = ("--source", other, "--split", "all")
    (other / "classes.txt").write_text("background\nbar\nsquare\n")
    got = segjax("evaluate", copy, *flags)
    assert got.code == 0
    assert "bar, square are scored as those of" in got.err
    (other / "classes.txt").write_text("background\nsquare\nbar\nroof\n")
    got = segjax("evaluate", copy, *flags)
    expect_one_error_line(got, "4 classes", "roof", "with 3", "classes.txt")
