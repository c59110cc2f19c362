import numpy as np
import pytest

from segjax import viz

PALETTE = np.array([[0, 0, 0], [200, 100, 0], [0, 0, 250]], np.uint8)


def test_color_by_hand():
    label = np.array([[0, 1], [2, 255]], np.int32)
    got = viz.label_to_rgb(label, PALETTE, label != 255)
    want = [[[0, 0, 0], [200, 100, 0]], [[0, 0, 250], [150, 150, 150]]]
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.uint8


def test_color_refuses_an_unknown_class():
    with pytest.raises(ValueError, match=r"below 3, got 0\.\.255"):
        viz.label_to_rgb(np.array([[0, 255]]), PALETTE)


def test_overlay_tints_inside_and_paints_the_outline():
    label = np.zeros((7, 7), np.int32)
    label[1:6, 1:6] = 1
    image = np.full((7, 7, 3), 100, np.uint8)
    got = viz.overlay(image, label, PALETTE, alpha=0.25)
    want = image.copy()
    want[1:6, 1:6] = PALETTE[1]  # The outline, and inside it a quarter of it.
    want[2:5, 2:5] = [125, 100, 75]
    np.testing.assert_array_equal(got, want)


def test_overlay_does_not_tint_ignored_pixels():
    label = np.full((3, 4), 255, np.int32)
    image = np.full((3, 4, 3), 51, np.uint8)
    valid = np.zeros((3, 4), bool)
    got = viz.overlay(image, label, PALETTE, valid=valid)
    np.testing.assert_array_equal(got, np.full((3, 4, 3), 51))


def test_touching_objects_of_the_same_color_are_separated():
    ids = np.zeros((5, 8), np.uint16)
    ids[:, 1:4], ids[:, 4:7] = 500, 512
    black = np.zeros((5, 8, 3), np.uint8)
    got = viz.overlay_objects(black, ids, alpha=0.5)
    color = viz.palette(13)[1 + 500 % 12].astype(int)
    assert not got[:, [0, 7]].any()
    np.testing.assert_array_equal(got[:, [1, 3, 4, 6]], np.tile(color, (5, 4, 1)))
    np.testing.assert_allclose(got[:, [2, 5]], np.tile(color / 2, (5, 2, 1)), atol=0.5)
    other = viz.overlay_objects(black, np.where(ids == 512, 501, ids))
    assert (other[0, 4] != other[0, 3]).any()


def test_errors_are_red_where_valid_and_wrong():
    image = np.full((1, 3, 3), 100, np.uint8)
    truth, prediction = np.array([[0, 1, 255]]), np.array([[0, 2, 0]])
    got = viz.errors(image, truth, prediction, np.array([[True, True, False]]))
    np.testing.assert_array_equal(got[0], [[60] * 3, [235, 64, 52], [60] * 3])
