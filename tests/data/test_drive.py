import io

import numpy as np
import PIL.Image
import pytest

from segjax import data
from tests.data import sources


def saved(pixels, kind="GIF"):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def files(rng):
    """Image n is gray n; the field of view leaves out the first column."""
    found = {}
    inside = np.full((8, 9), 255, np.uint8)
    inside[:, 0] = 0
    for part, first in (("training", 21), ("test", 1)):
        for n in range(first, first + 20):
            vessels = rng.choice(np.array([0, 255], np.uint8), (8, 9))
            image = np.full((8, 9), n, np.uint8)
            found |= {
                f"DRIVE/{part}/images/{n:02}_{part}.tif": saved(image, "TIFF"),
                f"DRIVE/{part}/1st_manual/{n:02}_manual1.gif": saved(vessels),
                f"DRIVE/{part}/mask/{n:02}_{part}_mask.gif": saved(inside),
            }
    return found


def test_splits_and_labels(files, tmp_path):
    source = sources.zipped(tmp_path / "DRIVE.zip", files)
    prepared = data.drive(source, data_dir=tmp_path / "prepared")
    numbers = {
        split: [int(example["image"][0, 0, 0]) for example in examples]
        for split, examples in prepared.splits.items()
    }
    assert numbers == {
        "train": list(range(21, 37)),
        "validation": list(range(37, 41)),
        "test": list(range(1, 21)),
    }
    assert prepared.classes == ("background", "vessel")
    name = "DRIVE/test/1st_manual/03_manual1.gif"
    want = np.asarray(PIL.Image.open(io.BytesIO(files[name])).convert("1"))
    got = prepared.splits["test"][2]["label"]
    np.testing.assert_array_equal(got[:, 1:], want[:, 1:])
    assert (got[:, 0] == 255).all()


def test_all_images_train(files, tmp_path):
    source = sources.write(tmp_path / "source", files)
    prepared = data.drive(source, validation=0, data_dir=tmp_path / "prepared")
    assert {k: len(v) for k, v in prepared.splits.items()} == {"train": 20, "test": 20}


def test_bad_files(files, tmp_path):
    def load(name, change):
        source = sources.write(tmp_path / name, files | change)
        data.drive(source, data_dir=tmp_path / "prepared")

    with pytest.raises(ValueError, match="validation must be 0 to 19, got 20"):
        data.drive(tmp_path, validation=20, data_dir=tmp_path / "prepared")
    odd = {"DRIVE/test/mask/07_test_mask.gif": saved(np.full((8, 9), 7, np.uint8))}
    with pytest.raises(ValueError, match=r"07_test_mask.gif holds id 7: needed one"):
        load("odd", odd)
    with pytest.raises(ValueError, match=r"x.gif has no number of its own"):
        load("name", {"DRIVE/test/mask/x.gif": saved(np.zeros((8, 9), np.uint8))})
    for name in list(files):
        if "test/1st_manual/09" in name:
            del files[name]
    with pytest.raises(ValueError, match=r"1st_manual holds 19 images \(09 is mis"):
        load("few", {})
    assert sources.leftovers(tmp_path / "prepared") == []


def test_real_data(shared_data, tmp_path):
    prepared = data.drive(shared_data / "drive", data_dir=tmp_path)
    counts = {k: len(v) for k, v in prepared.splits.items()}
    assert counts == {"train": 16, "validation": 4, "test": 20}
    for example in list(prepared.splits["test"])[:3]:
        assert example["image"].shape == (584, 565, 3)
        vessel, outside = (example["label"] == v for v in (1, 255))
        assert 0.05 < vessel.mean() < 0.2
        assert 0.2 < outside.mean() < 0.4
        assert example["image"][outside].mean() < 10
