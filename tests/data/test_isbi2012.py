import numpy as np
import pytest

from segjax import data
from tests.data import sources


@pytest.fixture
def files(rng):
    """Thirty slices; slice n is gray n everywhere."""
    found = {f"isbi2012/test/{n}.png": b"not read" for n in range(30)}
    for n in range(30):
        cells = rng.choice(np.array([0, 255], np.uint8), (8, 8))
        found[f"isbi2012/train/image/{n}.png"] = sources.png(np.full_like(cells, n))
        found[f"isbi2012/train/label/{n}.png"] = sources.png(cells)
    return found


@pytest.mark.parametrize("fold", range(5))
def test_folds_hold_out_six_slices(files, tmp_path, fold):
    source = sources.zipped(tmp_path / "isbi2012.zip", files)
    prepared = data.isbi2012(source, fold=fold, data_dir=tmp_path / "prepared")
    slices = {
        split: [int(example["image"][0, 0, 0]) for example in examples]
        for split, examples in prepared.splits.items()
    }
    held_out = [6 * fold + i for i in range(6)]
    assert slices == {
        "train": [n for n in range(30) if n not in held_out],
        "validation": held_out,
    }


def test_folds_share_a_preparation_but_not_a_fingerprint(files, tmp_path, capfd):
    source = sources.write(tmp_path / "source", files)
    folds = [data.isbi2012(source, fold=k, data_dir=tmp_path) for k in range(5)]
    assert len({fold.fingerprint for fold in folds}) == 5
    assert capfd.readouterr().err.count("Preparing") == 1


def test_membrane_is_0_and_cell_is_1(files, tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[2:, 3:] = 255
    files["isbi2012/train/label/24.png"] = sources.png(mask)
    source = sources.write(tmp_path / "source", files)
    prepared = data.isbi2012(source, data_dir=tmp_path / "prepared")
    assert prepared.classes == ("membrane", "cell")
    label = prepared.splits["validation"][0]["label"]
    np.testing.assert_array_equal(label, mask // 255)


def test_bad_folds_and_files(files, tmp_path):
    with pytest.raises(ValueError, match="fold must be 0 to 4, got 5"):
        data.isbi2012(tmp_path, fold=5, data_dir=tmp_path / "prepared")
    gray = {"isbi2012/train/label/3.png": sources.png(np.full((8, 8), 7, np.uint8))}
    source = sources.write(tmp_path / "gray", files | gray)
    with pytest.raises(
        ValueError, match=r"label/3.png holds id 7: needed one of 0, 25"
    ):
        data.isbi2012(source, data_dir=tmp_path / "prepared")
    few = {name: files[name] for name in files if "/7.png" not in name}
    source = sources.write(tmp_path / "few", few)
    with pytest.raises(ValueError, match=r"holds 29 slices: needed 0\.png to 29"):
        data.isbi2012(source, data_dir=tmp_path / "prepared")
    assert sources.leftovers(tmp_path / "prepared") == []


def test_real_data(shared_data, tmp_path):
    prepared = data.isbi2012(shared_data / "isbi2012", data_dir=tmp_path)
    assert {k: len(v) for k, v in prepared.splits.items()} == {
        "train": 24,
        "validation": 6,
    }
    for example in prepared.splits["validation"]:
        assert example["image"].shape == (512, 512, 3)
        membrane = example["label"] == 0
        assert 0.1 < membrane.mean() < 0.4
        assert example["image"][membrane].mean() < example["image"][~membrane].mean()
