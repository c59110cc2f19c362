"""Own photographs with a rare class: train without a script, then predict."""

import pathlib

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"
SMALL = {"height": 322, "width": 432, "scale": 1 / 3}


@pytest.fixture
def write_fields(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fields

    return fields.write_fields


def test_the_rare_class_has_its_share(write_fields, tmp_path):
    folder = write_fields(tmp_path / "fields", 6, **SMALL)
    masks = [np.asarray(Image.open(x)) for x in sorted(folder.glob("masks/*.png"))]
    assert 0.008 < np.mean(np.array(masks) == 2) < 0.025


@pytest.mark.slow
def test_both_plants_are_learned(segjax, write_fields, tmp_path):
    folder, run = write_fields(tmp_path / "fields", 12, **SMALL), tmp_path / "run"
    new = write_fields(tmp_path / "new", 4, seed=1, **SMALL)
    got = segjax(
        "train", "--data", folder, "--run", run, "--resize", 216, "--width", 8,
        "--steps", 100, "--batch-size", 4, "--encoder", "conv",
    )  # fmt: skip
    assert got.code == 0, got.err
    assert "shrunk 2 times, to 216 pixels" in got.out
    out = tmp_path / "out"
    assert segjax("predict", run, new / "images", "--out", out).code == 0
    hits, unions = np.zeros(3), np.zeros(3)
    for path in sorted(new.glob("masks/*.png")):
        truth, found = (
            np.asarray(Image.open(path)),
            np.asarray(Image.open(out / path.name)),
        )
        assert found.shape == truth.shape
        for k in range(3):
            hits[k] += ((truth == k) & (found == k)).sum()
            unions[k] += ((truth == k) | (found == k)).sum()
    assert (hits / unions)[1:].min() > 0.4
