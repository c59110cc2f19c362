"""Exact Euclidean distances on the pixel grid."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.typing import Array

# Offsets a turn of the loop. With one, most of the time goes to the loop itself.
_OFFSETS = 4


def distance_transform(
    mask: Bool[Array, "*batch h w"], *, spacing: Sequence[float] = (1.0, 1.0)
) -> Float[Array, "*batch h w"]:
    """Distance of each True pixel to the nearest False pixel of its image.

    Exact, between pixel centres. Down the columns the distance is a running
    count; along a row,

        d(i, j)**2 = min_k column(i, k)**2 + (j - k)**2

    is taken over offsets |j - k| that grow from 0, all pixels at once, and ends
    when no larger offset can be nearer: the time is proportional to the largest
    distance, and a mask of True with one False corner is the worst case.

    No gradient flows through it: a mask is boolean.

    Args:
        mask: [..., H, W] with any axes in front; each image on its own.
        spacing: (height, width) of a pixel, in any unit, above 0.

    Returns:
        [..., H, W] float32 in the unit of `spacing`; 0 where the mask is False.
        inf at every pixel of an image without a False pixel: there is nothing
        to be near to. (SciPy's `distance_transform_edt` measures such an image
        from a point outside it; elsewhere the two agree.) Squared distances are
        exact below 2**24, so for sides up to 2,896 pixels.

    Raises:
        ValueError: If spacing is not two numbers above 0.

    Reference:
        Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions,
        2012, section 3, with their lower envelope replaced by a search that is
        the same for all pixels.
    """
    chex.assert_axis_dimension_gt(mask, -2, 0)
    chex.assert_axis_dimension_gt(mask, -1, 0)
    if len(spacing) != 2 or not all(side > 0 for side in spacing):
        raise ValueError(
            f"spacing needs (height, width) of a pixel, both above 0, got "
            f"{tuple(spacing)}. Use (1.0, 1.0) for distances in pixels."
        )
    mask = jnp.asarray(mask)
    height, width = spacing
    column = _down_columns(mask) * jnp.float32(height)
    # Images that are all True stay inf and must not keep the loop going.
    open_ended = jnp.all(mask, axis=(-2, -1), keepdims=True)
    return jnp.sqrt(_along_rows(column**2, open_ended, width))


def _down_columns(mask: jax.Array) -> jax.Array:
    """Rows to the nearest False pixel of the same column; inf where none is."""
    rows = jnp.moveaxis(mask, -2, 0)

    def count(distance, row):
        distance = jnp.where(row, distance + 1, jnp.float32(0))
        return distance, distance

    start = jnp.full(rows.shape[1:], jnp.inf, jnp.float32)
    _, above = jax.lax.scan(count, start, rows)
    _, below = jax.lax.scan(count, start, rows, reverse=True)
    return jnp.moveaxis(jnp.minimum(above, below), 0, -2)


def _along_rows(squared: jax.Array, open_ended: jax.Array, side: float) -> jax.Array:
    """Lower envelope of parabolas along the last axis, squared in and out."""
    width = squared.shape[-1]
    margin = width + _OFFSETS
    pad = [(0, 0)] * (squared.ndim - 1) + [(margin, margin)]
    padded = jnp.pad(squared, pad, constant_values=jnp.inf)

    def cost(offset):
        return (offset * jnp.float32(side)) ** 2

    def more(carry):
        offset, best = carry
        return (offset < width) & (
            cost(offset) < jnp.max(jnp.where(open_ended, jnp.float32(0), best))
        )

    def widen(carry):
        offset, best = carry
        for k in range(_OFFSETS):
            for start in (margin + offset + k, margin - offset - k):
                other = jax.lax.dynamic_slice_in_dim(padded, start, width, axis=-1)
                best = jnp.minimum(best, other + cost(offset + k))
        return offset + _OFFSETS, best

    return jax.lax.while_loop(more, widen, (jnp.int32(1), squared))[1]
