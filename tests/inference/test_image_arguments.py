"""Arrays of other shapes and dtypes: the right image, or one line with the cure."""

import numpy as np
import pytest

from segjax import inference
from segjax.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
GRAY = RGB[..., 0]
ABOUT = {"channels": 3, "dtype": "uint8", "low": 0, "high": 255}


def as_image(image, **about):
    about = ABOUT | about
    return inference.as_image(image, about, owner="runs/a", max_pixels=10**6)


@pytest.mark.parametrize(
    ("image", "want"),
    [
        (RGB, RGB),
        (RGB.astype(np.float64), RGB),  # 0 to 255, as OpenCV and SciPy compute.
        (RGB.astype(np.int64), RGB),
        (GRAY, GRAY[..., None].repeat(3, -1)),
        (GRAY[..., None], GRAY[..., None].repeat(3, -1)),
        (GRAY.astype(np.float32), GRAY[..., None].repeat(3, -1)),
        (np.dstack([RGB, GRAY]), RGB),  # RGBA: as in files.
    ],
)
def test_what_can_only_mean_one_thing_is_converted(image, want):
    got = as_image(image)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, want)


def test_gray_models():
    np.testing.assert_array_equal(as_image(GRAY, channels=1), GRAY[..., None])
    want = GRAY[..., None].astype(np.float32)
    got = as_image(GRAY.astype(np.float64), channels=1, dtype="float32")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (RGB / 255, "pass np.round(image * 255).astype(np.uint8)"),
        (RGB + 0.5, "dtype float64"),
        (RGB.astype(np.float32) - 1, "dtype float32"),
        (RGB.astype(np.uint16) * 257, "pass np.round(image / 257)"),
        (RGB.astype(np.uint16), "pass np.round(image / 257)"),
        (RGB.astype(np.int32) * 2, "dtype int32"),
        (RGB > 9, "dtype bool"),
        (np.moveaxis(RGB, -1, 0), "pass np.moveaxis(image, 0, -1)"),
        (RGB[None], "Pass its images one by one."),
        (np.zeros((4, 4, 2), np.uint8), "[4, 4, 2]"),
        (np.zeros((0, 4, 3), np.uint8), "[0, 4, 3]"),
        (np.zeros(3, np.uint8), "[3]"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array(None), "dtype object"),
    ],
)
def test_what_is_not_clear_is_one_line(image, words):
    with pytest.raises(UserError) as error:
        as_image(image)
    text = str(error.value)
    assert text.startswith("runs/a needs images [H, W, 3] of dtype uint8")
    assert words in text
    assert "\n" not in text


def test_floats_of_another_scale_are_refused():
    """0 to 255 for a model of 0 to 1; a few bright pixels are not another scale."""
    about = {"dtype": "float32", "low": 0.0, "high": 1.0}
    image = RGB.astype(np.float32)
    with pytest.raises(UserError, match="another scale than the training images"):
        as_image(image, **about)
    image /= 255
    image[0, 0] = 100.0
    np.testing.assert_array_equal(as_image(image, **about), image)
    # Where the range of training is not known, nothing can be said.
    got = inference.as_image(
        RGB.astype(np.float32),
        {"channels": 3, "dtype": "float32"},
        owner="a",
        max_pixels=9,
    )
    assert got.shape == RGB.shape
