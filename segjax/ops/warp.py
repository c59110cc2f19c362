"""Sampling of an image at positions between its pixels.

Pixel centers are at whole numbers, as in `scipy.ndimage.map_coordinates`; a pixel
extends half a pixel to each side, so the image is [-0.5, H - 0.5] x [-0.5, W - 0.5].
All functions take one image; use `jax.vmap` for a batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Num, Shaped

from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array


def inside(
    rows: Num[Array, "i j"], columns: Num[Array, "i j"], size: tuple[int, int]
) -> Bool[Array, "i j"]:
    """True for positions inside an image of `size` (height, width), edges included."""
    height, width = size
    fits_rows = (rows >= -0.5) & (rows <= height - 0.5)
    return fits_rows & (columns >= -0.5) & (columns <= width - 0.5)


def sample_bilinear(
    image: Float[Array, "h w c"] | Integer[Array, "h w c"] | Bool[Array, "h w c"],
    rows: Num[Array, "i j"],
    columns: Num[Array, "i j"],
) -> Float[Array, "i j c"]:
    """Samples an image by bilinear interpolation.

    Args:
        image: [H, W, C].
        rows: [I, J] vertical positions in pixels.
        columns: [I, J] horizontal positions in pixels.

    Returns:
        [I, J, C] floats; 0 outside, and where a position is NaN. Between the centers of
        the outermost pixels and the edge, the value of the outermost pixel.

    Raises:
        ValueError: If a shape is wrong, or the image has no pixels.
    """
    checks.shapes(image=(image, "H W C"))
    image = checks.floating("image", image)
    rows, columns = _positions(image, rows, columns)
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
    pixels = image.reshape(height * width, channels)

    def at(r, c):
        return pixels.at[r * width + c].get(mode="promise_in_bounds")

    above = at(top, left) * (1 - across) + at(top, right) * across
    below = at(bottom, left) * (1 - across) + at(bottom, right) * across
    mixed = above * (1 - down) + below * down
    return jnp.where(inside(rows, columns, (height, width))[..., None], mixed, 0)


def sample_nearest(
    x: Shaped[Array, "h w *rest"],
    rows: Num[Array, "i j"],
    columns: Num[Array, "i j"],
) -> Shaped[Array, "i j *rest"]:
    """Samples an image or a label map at the nearest pixel.

    Args:
        x: [H, W, ...] of any dtype, such as class ids or masks.
        rows: [I, J] vertical positions in pixels.
        columns: [I, J] horizontal positions in pixels.

    Returns:
        [I, J, ...] in the dtype of `x`; 0 or False outside, and where a position is
        NaN.

    Raises:
        ValueError: If a shape is wrong, or `x` has no pixels.
    """
    rows, columns = _positions(x, rows, columns)
    height, width, *rest = x.shape
    row = jnp.clip(jnp.floor(rows + 0.5), 0, height - 1).astype(jnp.int32)
    column = jnp.clip(jnp.floor(columns + 0.5), 0, width - 1).astype(jnp.int32)
    flat = jnp.asarray(x).reshape(height * width, *rest)
    taken = flat.at[row * width + column].get(mode="promise_in_bounds")
    within = inside(rows, columns, (height, width))
    within = within.reshape(within.shape + (1,) * len(rest))
    return jnp.where(within, taken, jnp.zeros((), x.dtype))


def _positions(
    image: Array, rows: Array, columns: Array
) -> tuple[jax.Array, jax.Array]:
    """Checks shapes; positions of integers become floats."""
    checks.shapes(rows=(rows, "I J"), columns=(columns, "I J"))
    if image.ndim < 2 or 0 in image.shape[:2]:
        raise UserError(
            f"The image to sample needs shape [H, W, ...] with at least one pixel, got "
            f"{list(image.shape)}. Use jax.vmap for a batch."
        )
    return checks.floating("rows", rows), checks.floating("columns", columns)
