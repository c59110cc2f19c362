import numpy as np
import pytest

from segjax import viz


def test_starts_dark_then_okabe_and_ito():
    colors = viz.palette(4)
    assert colors.shape == (4, 3)
    assert colors[0].max() < 32
    np.testing.assert_array_equal(
        colors[1:], [(230, 159, 0), (86, 180, 233), (0, 158, 115)]
    )


@pytest.mark.parametrize("num_classes", [1, 11, 21, 150, 256])
def test_colors_are_distinct(num_classes):
    colors = viz.palette(num_classes).astype(int)
    assert len(np.unique(colors, axis=0)) == num_classes
    gaps = np.abs(colors[:, None] - colors[None]).max(-1)
    np.fill_diagonal(gaps, 255)
    assert gaps.min() >= (40 if num_classes <= 21 else 10)


def test_classes_keep_their_color_when_some_are_added():
    np.testing.assert_array_equal(viz.palette(30)[:12], viz.palette(12))


def test_no_class_has_the_gray_of_ignored_pixels():
    assert np.abs(viz.palette(64).astype(int) - 150).max(-1).min() > 20


def test_message():
    with pytest.raises(ValueError, match="at least 1 class, got 0"):
        viz.palette(0)
