"""Conversion to RGB."""

import numpy as np
import pytest

from segjax import viz


def test_uint8_colors_stay():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(viz.to_rgb(image), image)


def test_channels_of_uint8():
    image = np.arange(5, dtype=np.uint8)[None, None].repeat(2, 0)
    for count, want in ((1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])):
        np.testing.assert_array_equal(viz.to_rgb(image[..., :count]), [[want]] * 2)
    got = viz.to_rgb(image, channels=(4, 1, 3))
    np.testing.assert_array_equal(got, [[[4, 1, 3]]] * 2)
    np.testing.assert_array_equal(viz.to_rgb(image, channels=[2]), [[[2, 2, 2]]] * 2)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_window_by_hand(dtype):
    # 0 to 100 in steps of 1: percentiles 10 and 90 are 10 and 90.
    image = np.arange(101).astype(dtype).reshape(1, 101, 1)
    got = viz.to_rgb(image, window=(10, 90))[0, :, 0]
    want = np.round(255 * np.clip((np.arange(101) - 10) / 80, 0, 1))
    np.testing.assert_array_equal(got, want)


def test_each_channel_has_its_window():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    image = np.stack([ramp, 1000 * ramp - 5], axis=-1)
    got = viz.to_rgb(image)
    np.testing.assert_allclose(got[..., 0], got[..., 1], atol=1)
    assert got[..., 0].min() == 0
    assert got[..., 0].max() == 255


def test_few_bright_pixels_and_constants():
    image = np.zeros((20, 20, 1), np.float32)
    np.testing.assert_array_equal(viz.to_rgb(image + 3), np.full((20, 20, 3), 127))
    image[4, 5] = 7  # Beyond the 99th percentile, which is 0 as the first is.
    got = viz.to_rgb(image)
    assert got[4, 5].tolist() == [255] * 3
    assert got.sum() == 3 * 255


def test_pixels_that_are_not_finite_are_black():
    image = np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3, 1)
    image[0, 0], image[2, 2] = np.nan, np.inf
    got = viz.to_rgb(image)
    assert got[0, 0].tolist() == got[2, 2].tolist() == [0, 0, 0]
    assert got[2, 1].tolist() == [255] * 3
    assert not viz.to_rgb(np.full((2, 2, 1), np.nan, np.float32)).any()


def test_messages():
    image = np.zeros((2, 2, 4), np.uint8)
    for channels in ((), (0, 1, 2, 3), (4,), (-1,)):
        with pytest.raises(ValueError, match="from 0 to 3, got"):
            viz.to_rgb(image, channels=channels)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (2, np.float32), (5, np.uint16)]
)
def test_every_picture_takes_images_of_any_kind(channels, dtype):
    size = (20, 30)
    high = 255 if dtype == np.uint8 else 4000
    image = np.random.default_rng(0).integers(0, high, (*size, channels)).astype(dtype)
    label = np.zeros(size, np.int32)
    label[4:9, 5:12] = 1
    valid, names, palette = np.ones(size, bool), ("background", "cell"), viz.palette(2)
    mask = (label == 1)[None]
    objects = {"masks": mask, "boxes": np.array([[5, 4, 12, 9]], np.float32)}
    objects |= {"classes": np.array([1])}
    pictures = [
        viz.overlay(image, label, palette),
        viz.errors(image, label, label, valid),
        viz.triptych(image, label, label, palette=palette, classes=names),
        viz.instances(image, objects, classes=names),
        viz.instance_triptych(image, objects, objects, classes=names),
        viz.panels(image, label, label, palette=palette, valid=valid),
        viz.object_panels(image, objects, objects),
    ]
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
    background = viz.to_rgb(image)[0, 0]
    assert (pictures[0][0, 0] == background).all()
    assert (pictures[3][1, 1] == background).all()
