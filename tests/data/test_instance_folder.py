"""Folders of instance maps."""

import io

import numpy as np
import pytest

from segjax import data
from segjax.data.objects import objects_of
from tests.data import sources

IDS = np.array([[0, 0, 40000, 40000], [7, 7, 0, 40000], [7, 0, 0, 900]], np.uint16)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def files(rng):
    found = {}
    for i in range(10):
        found[f"images/{i}.png"] = sources.png(sources.image(rng, 3, 4))
        found[f"instances/{i}.png"] = sources.png(IDS)
    return found


@pytest.fixture
def load(tmp_path):
    def load(files, **options):
        source = sources.write(tmp_path / "mine", files)
        return data.instance_folder(source, data_dir=tmp_path / "prepared", **options)

    return load


def test_objects_are_those_of_the_map(load, files):
    got = load(files, class_name="cell")
    assert got.classes == ("background", "cell")
    assert {k: len(v) for k, v in got.splits.items()} == {
        "train": 8,
        "validation": 1,
        "test": 1,
    }
    example = got.splits["train"][0]
    np.testing.assert_array_equal(example["label"], IDS > 0)
    found = objects_of(example)
    np.testing.assert_array_equal(found.masks, [IDS == 7, IDS == 900, IDS == 40000])
    np.testing.assert_array_equal(found.classes, [1, 1, 1])


def test_maps_without_background_or_without_objects(load, files):
    files["instances/0.png"] = sources.png(np.full((3, 4), 5, np.uint8))
    files["instances/1.png"] = sources.png(np.zeros((3, 4), np.uint8))
    split = load(files, validation=0.0, test=0.0).splits["train"]
    assert objects_of(split[0]).masks.all()
    assert len(objects_of(split[0]).masks) == 1
    assert objects_of(split[1]).masks.shape == (0, 3, 4)


def test_split_folders(load, files):
    split = {f"{part}/{k}": v for part in ("train", "test") for k, v in files.items()}
    got = load(split, validation=0.2)
    assert {k: len(v) for k, v in got.splits.items()} == {
        "train": 8,
        "validation": 2,
        "test": 10,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instances/3.png": None}, ["3.png has no mask"]),
        ({"instances/3.png": sources.png(np.zeros((2, 4), np.uint8))}, ["4x2", "4x3"]),
        ({"instances/3.png": b"no"}, ["3.png is broken"]),
        ({"images": None}, ["has masks and no images", "add images/"]),
        (
            {"instances/3.png": None, "instances/3.npy": npy(np.full((3, 4), -1))},
            ["3.npy has 1 different numbers, the smallest -1", "none negative"],
        ),
    ],
    ids=["missing", "size", "broken", "folder", "negative"],
)
def test_each_fault_is_named(load, files, tmp_path, change, words):
    for name, content in change.items():
        files = {k: v for k, v in files.items() if not k.startswith(name)}
        files |= {} if content is None else {name: content}
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        load(files)
    for word in words:
        assert word in str(caught.value)
    assert sources.leftovers(tmp_path / "prepared") == []


def test_deep_images_and_their_id_maps(load, files, rng):
    deep = rng.integers(0, 65_536, (3, 4)).astype(np.uint16)
    files |= {name: sources.png(deep) for name in files if name.startswith("images")}
    got = load(files)
    pipeline = data.Pipeline(
        dataset=got,
        multiple=4,
        max_objects=3,
        fields={"instances": data.Field("nearest")},
    )
    (batch,) = pipeline.eval_batches("test", batch_size=1)
    np.testing.assert_array_equal(batch["image"][0, :3], deep[..., None])
    np.testing.assert_array_equal(
        batch["instances"][0, :3] > 0, batch["label"][0, :3] == 1
    )
    ids = batch["instances"][0]
    assert batch["object_mask"][0].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(batch["masks"][0, :3], [ids == 1, ids == 2, ids == 3])
