import numpy as np
import pytest

from segjax import viz

NAMES = ("background", "cat", "dog")
PALETTE = viz.palette(3)


def _triptych(height=32, width=32, *, predicted=None, **options):
    image = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
    truth = np.zeros((height, width), np.int32)
    truth[: height // 2] = 1
    prediction = np.zeros(predicted or (height, width), np.int32)
    return viz.triptych(
        image, truth, prediction, palette=PALETTE, classes=NAMES, **options
    )


def _has(picture, color):
    return (picture == np.asarray(color, np.uint8)).all(-1).sum()


def test_small_images_are_enlarged_without_smoothing():
    got = _triptych()
    assert got.dtype == np.uint8
    assert got.shape[1] == 3 * 256 + 2 * 6 + 2 * 10
    assert 256 < got.shape[0] < 380
    # The truth's upper half, and a swatch in the legend.
    count = _has(got, PALETTE[1])
    assert 256 * 128 < count < 256 * 128 + 200


def test_legend_names_the_classes_that_occur():
    got = _triptych()
    assert _has(got, PALETTE[1])
    assert not _has(got, PALETTE[2])


def test_ignored_pixels_are_gray():
    valid = np.ones((32, 32), bool)
    valid[:, :4] = False
    assert _has(_triptych(valid=valid), (150, 150, 150)) >= 4 * 8 * 256
    assert not _has(_triptych(), (150, 150, 150))


@pytest.mark.parametrize(("height", "width"), [(97, 61), (1, 1), (300, 2000)])
def test_any_size(height, width):
    got = _triptych(height, width)
    assert got.shape[1] <= 3 * 1024 + 32
    assert got.shape[0] >= 150


def test_smaller_prediction_is_compared_with_the_center():
    got = _triptych(64, 64, predicted=(32, 32))
    assert got.shape == _triptych(32, 32).shape
    # Half of the middle is class 1 too.
    assert _has(got, PALETTE[1]) == _has(_triptych(32, 32), PALETTE[1])


def test_contact_sheet_stacks_and_pads():
    first, second = np.zeros((2, 3, 3), np.uint8), np.zeros((1, 5, 3), np.uint8)
    got = viz.contact_sheet([first, second])
    assert got.shape == (3, 5, 3)
    np.testing.assert_array_equal(got[:, :, 0] == 0, [[1, 1, 1, 0, 0]] * 2 + [[1] * 5])
    with pytest.raises(ValueError, match="at least one picture"):
        viz.contact_sheet([])
