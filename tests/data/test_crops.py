"""Crops that hold chosen classes: how often, where, and from what alone."""

import contextlib
import itertools

import numpy as np
import pytest
from pycocotools import mask as coco

from segjax import data
from segjax.data import crops
from segjax.data.objects import encode_objects
from segjax.errors import UserError

SIZE = (8, 12)


@pytest.fixture
def label():
    """40x60 of class 0, with one pixel of class 1 and a bar of class 2."""
    label = np.zeros((40, 60), np.uint8)
    label[3, 50] = 1
    label[30:32, 10:40] = 2
    return label


def corners(label, placement, count=400, seed=0, **more):
    example = {"label": label, **more}
    return [crops.corner(seed, i, example, SIZE, placement) for i in range(count)]


def window(label, corner):
    return label[corner[0] : corner[0] + SIZE[0], corner[1] : corner[1] + SIZE[1]]


def test_all_crops_hold_a_class(label):
    both = data.ClassCrops((1, 2), share=1.0)
    found = [np.unique(window(label, c)) for c in corners(label, both)]
    assert all(x.max() > 0 for x in found)
    share = np.mean([1 in x for x in found])
    assert 0.4 < share < 0.6  # Each class as often, however few pixels it has.


def test_a_share_of_the_crops(label):
    one = data.ClassCrops((1,), share=0.3)
    held = [1 in window(label, c) for c in corners(label, one, 2000)]
    # By chance, one in 40 crops has the pixel.
    assert abs(np.mean(held) - (0.3 + 0.7 * 1 / 40)) < 0.04


def test_the_pixel_is_anywhere_in_the_crop(label):
    middle = np.zeros_like(label)
    middle[20, 30] = 1
    tops, lefts = zip(*corners(middle, data.ClassCrops((1,), 1.0), 3000), strict=True)
    assert set(tops) == set(range(20 - 7, 21))
    assert set(lefts) == set(range(30 - 11, 31))


def test_other_crops_stay_where_they_were(label):
    anywhere = corners(label, None)
    assert corners(label, data.ClassCrops((1,), share=0.0)) == anywhere
    assert corners(label, data.ClassCrops((7,), share=1.0)) == anywhere
    assert len(set(anywhere)) > 300


def test_crops_depend_on_seed_and_position_alone(label):
    both = data.ClassCrops((1, 2), share=0.5)
    assert corners(label, both) == corners(label, both)
    assert corners(label, both) != corners(label, both, seed=1)
    whole = corners(label, both)
    assert crops.corner(0, 17, {"label": label}, SIZE, both) == whole[17]


def test_images_smaller_than_the_crop():
    label = np.ones((4, 20), np.uint8)
    found = corners(label, data.ClassCrops((1,), share=1.0))
    assert {top for top, _ in found} == {0}
    assert {left for _, left in found} == set(range(9))


def test_batches_of_a_pipeline(label):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    made = data.from_arrays(images, np.stack([label] * 3), classes=("a", "b", "c"))
    plain = data.Pipeline(dataset=made, size=8)
    rare = data.Pipeline(dataset=made, size=8, placement=data.ClassCrops((1,), 1.0))
    assert plain.fingerprint() != rare.fingerprint()
    streams = [rare.train_batches(batch_size=2, seed=3) for _ in range(2)]
    streams.append(rare.train_batches(batch_size=2, seed=3, first_batch=2))
    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.enter_context(contextlib.closing(stream))
        one, two = (list(itertools.islice(stream, 4)) for stream in streams[:2])
        later = list(itertools.islice(streams[2], 2))
    for x, y in [*zip(one, two, strict=True), *zip(one[2:], later, strict=True)]:
        assert (x["label"] == 1).any((1, 2)).all()
        np.testing.assert_array_equal(x["image"], y["image"])
        np.testing.assert_array_equal(x["label"], y["label"])


def objects(label, kind):
    """A pixel and a bar as two objects, and a crowd if there can be one."""
    ids = np.where(label == 1, 5, np.where(label == 2, 900, 0)).astype(np.uint16)
    if kind == "instances":
        return {"instances": ids}
    masks = [ids == 5, label == 0, ids == 900]
    rles = [coco.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    crowd = [False, True, False]
    return {"objects": encode_objects(rles, [1, 1, 2], crowd)}


@pytest.mark.parametrize("kind", ["instances", "objects"])
def test_small_objects_are_held_as_often_as_large_ones(label, kind):
    found = corners(label, data.ObjectCrops(1.0), **objects(label, kind))
    held = [np.unique(window(label, c)) for c in found]
    assert all(x.max() > 0 for x in held)
    assert 0.4 < np.mean([1 in x for x in held]) < 0.6
    assert found == corners(label, data.ObjectCrops(1.0), **objects(label, kind))
    half = corners(label, data.ObjectCrops(0.5), 2000, **objects(label, kind))
    assert 0.5 < np.mean([window(label, c).any() for c in half]) < 0.9


@pytest.mark.parametrize("kind", ["instances", "objects"])
def test_images_without_objects_are_cropped_anywhere(label, kind):
    none = np.zeros_like(label)
    empty = {"instances": none} if kind == "instances" else {"objects": "[]"}
    found = corners(none, data.ObjectCrops(1.0), **empty)
    assert found == corners(none, None)


def test_object_crops_need_objects(label):
    with pytest.raises(UserError, match="This needs a data set with objects, got"):
        corners(label, data.ObjectCrops(1.0))


@pytest.mark.parametrize(
    "options", [{"classes": ()}, {"classes": (-1,)}, {"classes": (1,), "share": 1.5}]
)
def test_wrong_options(options):
    with pytest.raises(UserError, match=r"^(share|classes) must be"):
        data.ClassCrops(**options)
    if "share" in options:
        with pytest.raises(UserError, match=r"^share must be"):
            data.ObjectCrops(options["share"])
