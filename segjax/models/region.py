"""Masks of padded feature maps, for results that do not depend on padding.

A convolution at the border of the image sees zeros at the border of the array, but
biases and features if the array continues as padding. For results that do not depend on
padding, features outside the image are therefore set to zero before each convolution
with a kernel larger than 1x1. Masks are bool [B, H, W, 1]; None stands for an array
without padding.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Int

from segjax.typing import Array


def top_left(
    size: Int[Array, "b 2"], height: int, width: int
) -> Bool[Array, "b {height} {width} 1"]:
    """True in the first `size` rows and columns of each image.

    Args:
        size: [B, 2], rows and columns without padding.
        height: H, of the array.
        width: W.
    """
    rows = jnp.arange(height)[None, :, None, None] < size[:, 0, None, None, None]
    columns = jnp.arange(width)[None, None, :, None] < size[:, 1, None, None, None]
    return rows & columns


def zero_outside(x: Array, pixel_mask: Array | None) -> Array:
    """Sets `x` [B, H, W, C] to zero outside the mask."""
    return x if pixel_mask is None else jnp.where(pixel_mask, x, 0)


def stride(pixel_mask: Array | None, strides: int) -> Array | None:
    """The mask of a feature map with stride `strides`."""
    return pixel_mask if pixel_mask is None else pixel_mask[:, ::strides, ::strides]
