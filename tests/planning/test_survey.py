"""What `segjax data show` finds, planted on purpose."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segjax.data import Dataset
from segjax.planning import alignment, duplicates
from segjax.planning.survey import survey

COUNTS = {"train": 8, "validation": 3, "test": 4}


def _scene(rng, size=(160, 192)):
    """A bright region with texture on a dark ground, and its mask."""
    smooth = ndimage.gaussian_filter(rng.normal(size=size), 8)
    mask = smooth > np.quantile(smooth, 0.7)
    noise = ndimage.gaussian_filter(rng.normal(size=(*size, 3)), (1, 1, 0))
    image = 60 + 110 * mask[..., None] + 30 * noise
    return np.clip(image, 0, 255).astype(np.uint8), mask.astype(np.uint8)


def _jpeg(image, quality=60):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.fixture
def dataset(rng):
    splits = {}
    for split, count in COUNTS.items():
        scenes = [_scene(rng) for _ in range(count)]
        splits[split] = [
            {"image": image, "label": label, "name": f"{split}{i}"}
            for i, (image, label) in enumerate(scenes)
        ]
    return Dataset("mine", ("ground", "thing", "never"), splits, "fingerprint")


def _changed(dataset, split, number, **changes):
    some = [dict(example) for example in dataset.splits[split]]
    some[number] |= changes
    return dataclasses.replace(dataset, splits={**dataset.splits, split: some})


def test_counts_equal_numpy(dataset):
    found = survey(dataset)
    assert found.splits == {k: (n, n) for k, n in COUNTS.items()}
    labels = [e["label"] for x in dataset.splits.values() for e in x]
    images = np.stack([e["image"] for x in dataset.splits.values() for e in x])
    pixels = np.sum([one.pixels for one in found.seen], axis=0)
    assert pixels.tolist() == [np.sum(np.equal(labels, c)) for c in (0, 1, 2, 255)]
    histogram = np.sum([one.histogram for one in found.seen], axis=0)
    for channel in range(3):
        want, _ = np.histogram(images[..., channel], 64, (0, 255 + 1e-9))
        np.testing.assert_array_equal(histogram[channel], want)
    assert found.sizes == {(160, 192): 15}
    np.testing.assert_array_equal(found.co_occurrence[:2, :2], 1)
    assert np.isnan(found.co_occurrence[2]).all()
    assert not found.twins
    assert not found.empty
    assert not found.shifted


def test_a_reencoded_image_in_two_splits_is_a_leak(dataset):
    image = dataset.splits["train"][5]["image"]
    leaky = _changed(dataset, "test", 2, image=_jpeg(image))
    leaky = _changed(leaky, "validation", 0, image=image)
    leaky = _changed(leaky, "train", 7, image=leaky.splits["train"][1]["image"])
    found = survey(leaky)
    named = {
        frozenset(found.seen[i].place.name for i in (t.first, t.second)): t.exact
        for t in found.leaks
    }
    assert named == {
        frozenset({"train5", "validation0"}): True,
        frozenset({"train5", "test2"}): False,
        frozenset({"validation0", "test2"}): False,
    }
    assert len(found.twins) == 4  # And the pair inside train.
    assert [t.exact for t in found.twins] == [True, True, False, False]


@pytest.mark.parametrize("change", ["contrast", "size", "channel"])
def test_twins_survive(rng, change):
    image, _ = _scene(rng)
    changed = {
        "contrast": (image * 0.5 + 20).astype(np.uint8),
        "size": np.asarray(Image.fromarray(image).reduce(2)),
        "channel": image.mean(-1, keepdims=True).astype(np.uint8),
    }[change]
    assert duplicates.thumbnail(image) @ duplicates.thumbnail(changed) >= 0.999
    other, _ = _scene(rng)
    assert duplicates.thumbnail(image) @ duplicates.thumbnail(other) < 0.9


def test_images_without_contrast_are_twins_only_if_equal():
    images = [np.full((9, 9, 1), v, np.uint8) for v in (7, 8, 7)]
    pairs = duplicates.pairs(
        [duplicates.digest(x) for x in images],
        [duplicates.thumbnail(x) for x in images],
    )
    assert [(p.first, p.second, p.exact) for p in pairs] == [(0, 2, True)]


@pytest.mark.parametrize("shift", [(4, 0), (0, -6), (-4, 4)])
def test_a_shifted_mask_is_found_with_its_shift(rng, shift):
    image, label = _scene(rng)
    fits = alignment.alignment(image, label)
    assert fits.shift == (0, 0)
    assert fits.gain == 1
    assert fits.contrast > 2
    moved = np.roll(label, [-x for x in shift], (0, 1))
    found = alignment.alignment(image, moved)
    assert found.shift == shift
    assert found.gain > 1.5


def test_no_outline_no_alignment(rng):
    image, label = _scene(rng)
    assert alignment.alignment(image, 0 * label) is None
    assert alignment.alignment(0 * image, label) is None
    large = np.repeat(np.repeat(image, 4, 0), 4, 1)
    found = alignment.alignment(large, np.repeat(np.repeat(label, 4, 0), 4, 1))
    assert found.contrast > 2


def test_empty_masks_and_shifted_ones(dataset):
    label = dataset.splits["train"][3]["label"]
    planted = _changed(dataset, "train", 2, label=0 * label)
    planted = _changed(planted, "train", 3, label=np.roll(label, 4, 0))
    found = survey(planted)
    assert [one.place.name for one in found.empty] == ["train2"]
    assert [one.place.name for one in found.shifted] == ["train3"]


def test_many_images_are_read_evenly(dataset):
    found = survey(dataset, most=4)
    assert found.splits == {"train": (8, 4), "validation": (3, 3), "test": (4, 4)}
    names = [one.place.name for one in found.seen if one.place.split == "train"]
    assert names == ["train0", "train2", "train4", "train6"]


def test_no_image_is_said():
    with pytest.raises(ValueError, match="nothing has no image"):
        survey(Dataset("nothing", ("a",), {"train": []}, ""))
