"""Padding of images to sizes that a network can halve."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.typing import Array


def round_up(size: int, multiple: int) -> int:
    """Returns the smallest multiple of `multiple` that is at least `size`."""
    return size + -size % multiple


def reflect_pad(x: Array, size: Sequence[int]) -> Array:
    """Pads images at the bottom and right by reflection.

    Like `mode="reflect"` of NumPy: the last row or column is not repeated, and padding
    longer than the image reflects repeatedly. A row a b c continues as b a b c b. A
    single pixel is repeated.

    Args:
        x: [B, H, W, ...] with at least one pixel.
        size: (height, width) of the result, at least (H, W).

    Returns:
        [B, height, width, ...]; `x` itself if it already has that size.

    Raises:
        ValueError: If `size` is smaller than the image or the image is empty.
    """
    height, width = size
    if (x.shape[1], x.shape[2]) == (height, width):
        return x
    if 0 in x.shape[1:3] or x.shape[1] > height or x.shape[2] > width:
        raise UserError(
            f"reflect_pad needs from 1x1 to {height}x{width} pixels, "
            f"got {x.shape[1]}x{x.shape[2]}. Pad to a larger size, or crop."
        )
    x = jnp.take(x, _mirror(x.shape[1], height), axis=1)
    return jnp.take(x, _mirror(x.shape[2], width), axis=2)


def _mirror(size: int, total: int) -> np.ndarray:
    period = max(2 * (size - 1), 1)
    index = np.arange(total) % period
    return np.minimum(index, period - index) if size > 1 else index * 0
