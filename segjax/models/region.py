"""The part of a padded feature map that counts, so that padding changes nothing.

Convolutions spread what is beyond a border into the image: zeros at the border of the
array, but biases and features where the array goes on as padding. A network that is to
give the same numbers however far its input was padded therefore sets features to zero
outside of the image before each convolution that sees neighbors. Masks are bool
[B, H, W, 1]; None stands for an array without padding, at no cost.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Int

from segjax.typing import Array


def top_left(
    size: Int[Array, "b 2"], height: int, width: int
) -> Bool[Array, "b {height} {width} 1"]:
    """True in the first `size` rows and columns of each image.

    Args:
        size: [B, 2], rows and columns that count.
        height: H, of the array.
        width: W.
    """
    rows = jnp.arange(height)[None, :, None, None] < size[:, 0, None, None, None]
    columns = jnp.arange(width)[None, None, :, None] < size[:, 1, None, None, None]
    return rows & columns


def zero_outside(x: Array, pixel_mask: Array | None) -> Array:
    """`x` [B, H, W, C] with zeros where it does not count."""
    return x if pixel_mask is None else jnp.where(pixel_mask, x, 0)


def stride(pixel_mask: Array | None, strides: int) -> Array | None:
    """The mask of a map of every `strides`-th row and column."""
    return pixel_mask if pixel_mask is None else pixel_mask[:, ::strides, ::strides]
