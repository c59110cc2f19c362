"""Reading an image at places between its pixels.

Pixel centers are at whole numbers, as in `scipy.ndimage.map_coordinates`; a pixel
reaches half a pixel to each side. So [-0.5, H - 0.5] x [-0.5, W - 0.5] is inside.
All functions take one image: `jax.vmap` them over a batch.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from segjax.typing import Array


def inside(
    rows: Float[Array, "i j"], columns: Float[Array, "i j"], size: tuple[int, int]
) -> Bool[Array, "i j"]:
    """Which places lie on an image of `size` (height, width), its edges included."""
    height, width = size
    fits_rows = (rows >= -0.5) & (rows <= height - 0.5)
    return fits_rows & (columns >= -0.5) & (columns <= width - 0.5)


def sample_bilinear(
    image: Float[Array, "h w c"],
    rows: Float[Array, "i j"],
    columns: Float[Array, "i j"],
) -> Float[Array, "i j c"]:
    """Mixes the four nearest pixels, by distance.

    Args:
        image: [H, W, C].
        rows: [I, J] vertical places in pixels.
        columns: [I, J] horizontal places in pixels.

    Returns:
        [I, J, C]. 0 outside; beyond the centers of the outermost pixels, but still
        inside, the outermost pixel's value.
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
    # One flat index: on a CPU half the time of indexing with pairs.
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
    """Takes the pixel whose square holds the place.

    Args:
        x: [H, W, ...] of any type, such as class ids or masks.
        rows: [I, J] vertical places in pixels.
        columns: [I, J] horizontal places in pixels.

    Returns:
        [I, J, ...] of the type of `x`; 0 or False outside.
    """
    height, width, *rest = x.shape
    row = jnp.clip(jnp.floor(rows + 0.5), 0, height - 1).astype(jnp.int32)
    column = jnp.clip(jnp.floor(columns + 0.5), 0, width - 1).astype(jnp.int32)
    flat = jnp.asarray(x).reshape(height * width, *rest)
    taken = flat.at[row * width + column].get(mode="promise_in_bounds")
    within = inside(rows, columns, (height, width))
    within = within.reshape(within.shape + (1,) * len(rest))
    return jnp.where(within, taken, jnp.zeros((), x.dtype))
