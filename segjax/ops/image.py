"""Pixels: from those stored (uint8) to those computed with (float), and larger ones."""

import jax.numpy as jnp

from segjax.typing import Array


def to_float(image: Array) -> Array:
    """Maps stored pixels to [0, 1] on the device.

    Args:
        image: [..., H, W, 3] uint8 in 0..255, or a float image, which is returned
            unchanged.

    Returns:
        [..., H, W, 3] float32 in [0, 1].
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image
    return jnp.asarray(image, jnp.float32) / 255


def repeat_pixels(x: Array, times: int, *, axis: int = 1) -> Array:
    """Enlarges by nearest neighbours: every row and column so many times.

    Args:
        x: [..., H, W, ...].
        times: How many times.
        axis: That of the rows; columns are the next.

    Returns:
        [..., H * times, W * times, ...].
    """
    return jnp.repeat(jnp.repeat(x, times, axis=axis), times, axis=axis + 1)
