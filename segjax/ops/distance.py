"""Exact Euclidean distances on the pixel grid."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array

# Columns that are compared one by one; 4 to 16 are equally fast.
_BLOCK = 8


def distance_transform(
    mask: Bool[Array, "*batch h w"] | Integer[Array, "*batch h w"],
    *,
    spacing: Sequence[float] = (1.0, 1.0),
) -> Float[Array, "*batch h w"]:
    """Computes the distance of each True pixel to the nearest False pixel of its image.

    Distances are exact, between pixel centers. Along columns the distance is a running
    count; along a row,

        d(i, j)**2 = min_k column(i, k)**2 + (j - k)**2

    is a lower envelope of parabolas. Two parabolas cross once, and so do the envelopes
    of two neighboring blocks of columns: left of a border one block is nearer, right of
    it the other. Borders are found by bisection, between pairs of blocks, then between
    pairs of pairs. A pixel follows the borders down to one block and compares its
    columns. The time is pixels times log(width) for any mask. docs/speed.md compares it
    with a search over all offsets. In a volume, the depth follows as another row.

    No gradient flows through it, because masks are boolean.

    Args:
        mask: [..., H, W] with any leading axes; integers are True where not 0.
        spacing: (height, width) of a pixel, in any unit, above 0. With three numbers,
            (depth, height, width) of a voxel: the mask is [..., D, H, W], volumes.

    Returns:
        [..., H, W] float32 in the unit of `spacing`; 0 where the mask is False.
        inf at every pixel of an image without False pixels. (For such images SciPy's
        `distance_transform_edt` returns distances to a point outside; otherwise the two
        agree.) Squared distances are exact below 2**24, that is, for sides up to 2,896
        pixels.

    Raises:
        ValueError: If spacing is not two or three numbers above 0.

    Reference:
        Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions,
        2012, section 3. The paper builds the envelope column by column.
    """
    volumes = len(spacing) == 3
    checks.shapes(mask=(mask, "... D H W" if volumes else "... H W"))
    if 0 in mask.shape[-len(spacing) :]:
        raise UserError(f"mask needs pixels, got shape {list(mask.shape)}.")
    if len(spacing) not in (2, 3) or not all(0 < side < math.inf for side in spacing):
        raise UserError(
            f"spacing needs (height, width) of a pixel, or (depth, height, width) of a "
            f"voxel, all above 0, got {tuple(spacing)}. Use (1.0, 1.0) for distances "
            f"in pixels."
        )
    mask = jnp.asarray(checks.as_mask("mask", mask))
    *depth, height, width = spacing
    column = _down_columns(mask) * jnp.float32(height)

    def rows(squared):
        squared = _along_rows(squared, width)
        for side in depth:
            moved = jnp.moveaxis(squared, -3, -1)
            squared = jnp.moveaxis(_along_rows(moved, side), -1, -3)
        return squared

    # The branch keeps XLA from fusing the rows with later operations, which would
    # materialize every gather. See docs/speed.md.
    squared = jax.lax.cond(jnp.any(mask), rows, lambda x: x, column**2)
    return jnp.sqrt(squared)


def _down_columns(mask: jax.Array) -> jax.Array:
    """Rows to the nearest False pixel of the same column; inf if there is none."""
    rows = jnp.moveaxis(mask, -2, 0)

    def count(distance, row):
        distance = jnp.where(row, distance + 1, jnp.float32(0))
        return distance, distance

    start = jnp.full(rows.shape[1:], jnp.inf, jnp.float32)
    _, above = jax.lax.scan(count, start, rows)
    _, below = jax.lax.scan(count, start, rows, reverse=True)
    return jnp.moveaxis(jnp.minimum(above, below), 0, -2)


def _along_rows(squared: jax.Array, side: float) -> jax.Array:
    """Lower envelope of parabolas along the last axis, of squared distances."""
    *lead, width = squared.shape
    depth = ((width - 1) // _BLOCK).bit_length()
    pad = [(0, 0)] * len(lead) + [(0, (_BLOCK << depth) - width)]
    nearest = functools.partial(
        _nearest, jnp.pad(squared, pad, constant_values=jnp.inf), side
    )

    def numbers(count):
        return jnp.broadcast_to(jnp.arange(count), (*lead, count))

    def border(borders, pairs):
        """First pixel for which the right block of each pair is nearer."""

        def bisect(turn, low):
            high = low + (1 << (width.bit_length() - 1 - turn))
            left = nearest(borders, high - 1, 2 * pairs)
            right = nearest(borders, high - 1, 2 * pairs + 1)
            return jnp.where(left <= right, high, low)

        return jax.lax.fori_loop(0, width.bit_length(), bisect, jnp.zeros_like(pairs))

    borders = ()
    for level in reversed(range(depth)):
        borders = (border(borders, numbers(1 << level)), *borders)
    return nearest(borders, numbers(width), jnp.zeros((*lead, width), jnp.int32))


def _nearest(
    squared: jax.Array,
    side: float,
    borders: Sequence[jax.Array],
    pixel: jax.Array,
    block: jax.Array,
) -> jax.Array:
    """Squared distances of pixels to the nearest column of their blocks.

    Args:
        squared: [..., N] squared distance of each column to its own False pixels.
        side: Width of a pixel.
        borders: [..., n] each, from the largest blocks to pairs of the smallest.
        pixel: [..., M] columns, which may be outside the image.
        block: [..., M] indices of blocks twice as large as those of `borders[0]`.

    Returns:
        [..., M].
    """
    take = functools.partial(jnp.take_along_axis, axis=-1, mode="promise_in_bounds")
    for border in borders:
        block = 2 * block + (pixel >= take(border, block))
    best = jnp.full(pixel.shape, jnp.inf, jnp.float32)
    for k in range(_BLOCK):  # Faster than one gather.
        column = block * _BLOCK + k
        across = (pixel - column) * jnp.float32(side)
        best = jnp.minimum(best, take(squared, column) + across**2)
    return best
