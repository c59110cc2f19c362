"""Sampling of an image at positions between its pixels.

Pixel centers are at whole numbers, as in `scipy.ndimage.map_coordinates`; a pixel
extends half a pixel to each side, so the image is [-0.5, H - 0.5] x [-0.5, W - 0.5].
All functions take one image; use `jax.vmap` for a batch.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from segjax.typing import Array


def inside(
    rows: Float[Array, "i j"], columns: Float[Array, "i j"], size: tuple[int, int]
) -> Bool[Array, "i j"]:
    """True for positions inside an image of `size` (height, width), edges included."""
    height, width = size
    fits_rows = (rows >= -0.5) & (rows <= height - 0.5)
    return fits_rows & (columns >= -0.5) & (columns <= width - 0.5)


def sample_bilinear(
    image: Float[Array, "h w c"],
    rows: Float[Array, "i j"],
    columns: Float[Array, "i j"],
) -> Float[Array, "i j c"]:
    """Samples an image by bilinear interpolation.

    Args:
        image: [H, W, C].
        rows: [I, J] vertical positions in pixels.
        columns: [I, J] horizontal positions in pixels.

    Returns:
        [I, J, C]; 0 outside. Between the centers of the outermost pixels and the edge,
        the value of the outermost pixel.
    """
    height, width, channels = image.shape
    row = jnp.clip(rows, 0, height - 1)
    column = jnp.clip(columns, 0, width - 1)
    top = jnp.floor(row).astype(jnp.int32)
    left = jnp.floor(column).astype(jnp.int32)
    bottom = jnp.minimum(top + 1, height - 1)
    right = jnp.minimum(left + 1, width - 1)
    down = (row - top)[..., None]
    across = (column - left)[..., None]
    # One flat index is faster on CPUs than a pair of indices.
    pixels = jnp.asarray(image).reshape(height * width, channels)

    def at(r, c):
        return pixels.at[r * width + c].get(mode="promise_in_bounds")

    above = at(top, left) * (1 - across) + at(top, right) * across
    below = at(bottom, left) * (1 - across) + at(bottom, right) * across
    mixed = above * (1 - down) + below * down
    return jnp.where(inside(rows, columns, (height, width))[..., None], mixed, 0)


def sample_nearest(
    x: Shaped[Array, "h w *rest"],
    rows: Float[Array, "i j"],
    columns: Float[Array, "i j"],
) -> Shaped[Array, "i j *rest"]:
    """Samples an image or a label map at the nearest pixel.

    Args:
        x: [H, W, ...] of any dtype, such as class ids or masks.
        rows: [I, J] vertical positions in pixels.
        columns: [I, J] horizontal positions in pixels.

    Returns:
        [I, J, ...] in the dtype of `x`; 0 or False outside.
    """
    height, width, *rest = x.shape
    row = jnp.clip(jnp.floor(rows + 0.5), 0, height - 1).astype(jnp.int32)
    column = jnp.clip(jnp.floor(columns + 0.5), 0, width - 1).astype(jnp.int32)
    flat = jnp.asarray(x).reshape(height * width, *rest)
    taken = flat.at[row * width + column].get(mode="promise_in_bounds")
    within = inside(rows, columns, (height, width))
    within = within.reshape(within.shape + (1,) * len(rest))
    return jnp.where(within, taken, jnp.zeros((), x.dtype))
