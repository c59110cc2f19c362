import numpy as np
import pytest

from segjax import viz

NAMES = ("background", "cat", "dog")


def objects(count=2, size=(64, 80)):
    masks = np.zeros((count, *size), bool)
    boxes = np.zeros((count, 4), np.float32)
    for i in range(count):
        y, x = 20 + i % 3 * 12, 5 + 9 * (i % 7)
        masks[i, y : y + 10, x : x + 7] = True
        boxes[i] = x, y, x + 7, y + 10
    classes = np.arange(count, dtype=np.int32) % 2 + 1
    return {"masks": masks, "boxes": boxes, "classes": classes}


def black(size=(64, 80)):
    return np.zeros((*size, 3), np.uint8)


def count(picture, color):
    return (picture == np.asarray(color, np.uint8)).all(-1).sum()


def test_outlines_and_boxes_are_where_the_objects_are():
    got = viz.instances(black(), objects(1), classes=NAMES)
    assert got.shape == (256, 320, 3)  # Four times as large.
    color = viz.palette(2)[1]
    # Below the caption's plate: the mask's outline and the box on it.
    assert (got[80 + 39, 20 : 20 + 28] == color).all()
    assert not got[200:].any()
    inside = got[100, 32].astype(int)
    np.testing.assert_allclose(inside, 0.45 * color, atol=1)


def test_first_lies_on_top():
    both = objects(2)
    both["masks"][1] = both["masks"][0]
    both["boxes"][1] = both["boxes"][0]
    got = viz.instances(black(), both, classes=NAMES)
    first, second = viz.palette(3)[1:]
    outline = got[80 + 39, 24:44]
    assert (outline == first).all()
    assert not (outline == second).all(-1).any()


def test_scores_are_written_and_names_left_out_of_crowded_images():
    few = viz.instances(black(), objects(3), classes=NAMES)
    scored = objects(3) | {"scores": np.array([0.9, 0.8, 0.7], np.float32)}
    assert (viz.instances(black(), scored, classes=NAMES) != few).any()
    many = objects(40)
    plain = viz.instances(black(), many, classes=NAMES)
    named = viz.instances(black(), many, classes=("background", "x", "y"))
    np.testing.assert_array_equal(plain, named)


def test_the_only_class_is_not_named():
    alone = objects(3) | {"classes": np.ones(3, np.int32)}
    names = ("background", "cat")
    got = viz.instances(black(), alone, classes=names)
    # Nothing but boxes and masks: no plate above the first box.
    assert not got[:80].any()
    scored = alone | {"scores": np.array([0.9, 0.8, 0.7], np.float32)}
    assert viz.instances(black(), scored, classes=names)[:80].any()


@pytest.mark.parametrize("size", [(9, 300), (1, 1), (1500, 40)])
def test_any_size_and_no_object(size):
    none = {
        "masks": np.zeros((0, *size), np.float32),
        "boxes": np.zeros((0, 4), np.float32),
        "classes": np.zeros(0, np.int32),
        "scores": np.zeros(0, np.float32),
    }
    got = viz.instance_triptych(black(size), none, none, classes=NAMES)
    assert got.dtype == np.uint8
    assert got.shape[1] <= 3 * 1024 + 32
