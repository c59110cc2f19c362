"""Maps that are computed from examples, and the depth of instances."""

import pickle

import numpy as np
import pytest
from scipy import ndimage

from segjax import data


def scenes(count=3, size=20):
    """Images with a few instances of different sizes."""
    rng = np.random.default_rng(0)
    instances = np.zeros((count, size, size), np.uint16)
    instances[:, 2:9, 3:8], instances[:, 9:12, 3:17] = 4, 9
    instances[:, 15:18, 15:18] = 2
    return data.from_arrays(
        rng.integers(0, 255, (count, size, size, 3), np.uint8),
        (instances > 0).astype(np.uint8),
        classes=("background", "cell"),
        fields={"instances": instances},
    )


def twice(example):
    return example["instances"].astype(np.float32) * 2


def test_the_map_is_in_examples_and_batches():
    mapped = data.with_map(scenes(), "twice", twice)
    for split, examples in mapped.splits.items():
        assert len(examples) == len(scenes().splits[split])
        for example in examples:
            np.testing.assert_array_equal(example["twice"], 2.0 * example["instances"])
    pipeline = data.Pipeline(
        dataset=mapped, multiple=4, fields={"twice": data.Field("nearest")}
    )
    batch = next(pipeline.train_batches(batch_size=1, seed=0))
    assert batch["twice"].shape == (1, 20, 20)
    assert batch["twice"].max() == 18


def test_sizes_names_and_processes():
    examples = data.with_map(scenes(), "twice", twice).splits["train"]
    assert examples.image_size(0) == (20, 20)
    assert examples.name(0) == examples[0]["name"]
    again = pickle.loads(pickle.dumps(examples))
    np.testing.assert_array_equal(again[0]["twice"], examples[0]["twice"])


def test_the_fingerprint_has_the_name_and_the_values():
    prints = {
        scenes().fingerprint,
        data.with_map(scenes(), "twice", twice).fingerprint,
        data.with_map(scenes(), "other", twice).fingerprint,
        data.with_map(scenes(), "twice", lambda e: 1 + twice(e)).fingerprint,
    }
    assert len(prints) == 4
    same = data.with_map(scenes(), "twice", lambda e: twice(e))
    assert same.fingerprint in prints


def test_wrong_maps_are_named():
    with pytest.raises(ValueError, match="have 'instances' already"):
        data.with_map(scenes(), "instances", twice)
    with pytest.raises(ValueError, match=r"\[20, 20\].*'half'.*\[10, 20\]"):
        data.with_map(scenes(), "half", lambda example: twice(example)[::2])


def by_brute_force(ids):
    """Distance to the nearest pixel of another id inside the image, by its maximum."""
    height, width = ids.shape
    places = np.stack(np.meshgrid(range(height), range(width), indexing="ij"), -1)
    depth = np.zeros(ids.shape)
    for i in np.unique(ids[ids > 0]):
        others = places[ids != i]
        for row, column in places[ids == i]:
            gaps = ((others - (row, column)) ** 2).sum(-1)
            depth[row, column] = np.sqrt(gaps.min()) if len(gaps) else 1
        depth[ids == i] /= depth[ids == i].max()
    return depth


@pytest.mark.parametrize("seed", range(4))
def test_depth_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    ids = np.zeros((24, 19), np.uint16)
    for number in range(1, 7):
        top, left = rng.integers(0, 20), rng.integers(0, 15)
        size = rng.integers(2, 11, 2)
        ids[top : top + size[0], left : left + size[1]] = 7 * number
    np.testing.assert_allclose(
        data.instance_depth({"instances": ids}), by_brute_force(ids), atol=1e-6
    )


def test_depth_where_there_is_one_instance_or_none():
    whole = data.instance_depth({"instances": np.full((5, 6), 3)})
    np.testing.assert_array_equal(whole, np.ones((5, 6)))
    none = data.instance_depth({"instances": np.zeros((5, 6), int)})
    np.testing.assert_array_equal(none, np.zeros((5, 6)))


def test_touching_instances_have_a_valley_and_a_core_each():
    ids = np.zeros((30, 60), int)
    rows, columns = np.ogrid[:30, :60]
    for number, center in ((1, 22), (2, 37)):
        ids[(rows - 15) ** 2 + (columns - center) ** 2 < 64] = number
    depth = data.instance_depth({"instances": ids})
    assert ndimage.label(ids > 0)[1] == 1
    cores, count = ndimage.label(depth > 0.5)
    assert count == 2
    assert {ids[cores == k].max() for k in (1, 2)} == {1, 2}
