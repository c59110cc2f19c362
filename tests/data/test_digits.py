import hashlib
import pickle

import numpy as np
import pytest
import scipy.ndimage
import sklearn.datasets

from segjax import data
from segjax.data.builders import digits
from segjax.typing import IGNORE_INDEX


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return data.digits(data_dir=tmp_path_factory.mktemp("digits"))


def test_splits_and_classes(prepared):
    sizes = {split: len(examples) for split, examples in prepared.splits.items()}
    assert sizes == {"train": 6_000, "validation": 500, "test": 500}
    assert prepared.classes == ("background", *"0123456789")


def test_examples_are_consistent(prepared):
    num_objects = []
    for example in list(prepared.splits["validation"])[:100]:
        label, instances = example["label"], example["instances"]
        assert example["image"].shape == (32, 32, 3)
        assert example["image"].dtype == label.dtype == np.uint8
        assert label.max() <= 10
        np.testing.assert_array_equal(label > 0, instances > 0)
        num_objects.append(len(example["classes"]))
        for i, (box, kind) in enumerate(
            zip(example["boxes"], example["classes"], strict=True), start=1
        ):
            rows, columns = np.nonzero(instances == i)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal(box, tight)
            assert set(label[instances == i]) == {kind}
    assert set(num_objects) == {1, 2, 3}


def test_background_dominates(prepared):
    labels = np.stack([e["label"] for e in prepared.splits["test"]])
    share = np.bincount(labels.ravel(), minlength=11) / labels.size
    assert 0.7 < share[0] < 0.9
    assert share[1:].min() > 0.005
    assert IGNORE_INDEX not in labels


def test_digits_hardly_overlap():
    hidden = []
    for number in range(50):
        instances = digits.scene("test", number)["instances"]
        for i in range(1, instances.max() + 1):
            # A digit covered by another one would have many pieces.
            hidden.append(scipy.ndimage.label(instances == i, np.ones((3, 3)))[1])
    assert np.mean(np.array(hidden) == 1) > 0.8


def test_scenes_are_those_of_their_version():
    """A changed scene needs a new VERSION, since users have prepared the old one."""
    total = hashlib.sha256()
    for split in digits.SCENES:
        for number in range(20):
            for key, value in sorted(digits.scene(split, number).items()):
                total.update(np.asarray(value).tobytes() if key != "name" else b"")
    assert str(digits.Digits.VERSION) == "1.1.0"
    assert total.hexdigest()[:16] == "9ffd736e2ce8dbf2"


def test_source_digits_are_those_of_scikit_learn():
    ink, kinds = digits.source_digits()
    want = sklearn.datasets.load_digits()
    np.testing.assert_array_equal(ink, want.images / 16, strict=True)
    np.testing.assert_array_equal(kinds, want.target)


def test_no_source_digit_is_in_two_splits():
    parts = [set(digits.source_indices(split)) for split in digits.SCENES]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1_797


def test_scenes_draw_from_their_own_split(monkeypatch):
    # Scenes do not change if the digits of other splits are empty.
    before = digits.scene("validation", 3)
    ink, kinds = digits.source_digits()
    blank = np.zeros_like(ink)
    own = digits.source_indices("validation")
    blank[own] = ink[own]
    monkeypatch.setattr(digits, "source_digits", lambda: (blank, kinds))
    after = digits.scene("validation", 3)
    np.testing.assert_array_equal(before["image"], after["image"])


def test_two_preparations_are_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "SCENES", {"train": 300, "validation": 9, "test": 9})
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(tmp_path))
    once, again = data.digits(data_dir=tmp_path / "once"), data.digits()
    assert again.fingerprint == once.fingerprint
    assert (tmp_path / "digits" / str(digits.Digits.VERSION)).is_dir()
    for i in (0, 299):
        one, two = once.splits["train"][i], again.splits["train"][i]
        np.testing.assert_array_equal(one["image"], two["image"])


def test_splits_can_be_pickled_and_indexed(prepared):
    examples = prepared.splits["train"]
    copy = pickle.loads(pickle.dumps(examples))
    assert copy[-1]["name"] == examples[5_999]["name"] == "train-5999"
    np.testing.assert_array_equal(copy[7]["image"], examples[7]["image"])
    assert len(pickle.dumps(examples)) < 1_000
    with pytest.raises(IndexError, match="no example 6000"):
        examples[6_000]


def test_prepares_once_and_quietly(prepared, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(digits, "SCENES", {"train": 3, "validation": 2, "test": 1})
    data.digits(data_dir=tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "Preparing digits: 6 examples\n"
    data.digits(data_dir=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, ValueError])
def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch, trouble):
    make = digits.scene

    def interrupted(split, number):
        if number == 70:
            raise trouble("now")
        return make(split, number)

    monkeypatch.setattr(digits, "scene", interrupted)
    with pytest.raises(trouble, match=r"^now$"):
        data.digits(data_dir=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_unusable_data_dir(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match=r"cannot write to .*set SEGJAX_DATA_DIR"):
        data.digits(data_dir=tmp_path / "file")
