"""Interpolation positions and weights of ROIAlign along one axis.

The two axes are independent: a sample is used if it is inside on both, and the weights
of its four features are products.
"""

import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.typing import Array


def cell_entries(
    start: Float[Array, " r"],
    end: Float[Array, " r"],
    limit: Int[Array, " r"],
    *,
    cells: int,
    aligned: bool,
    count: Float[Array, " r"],
    most: int,
) -> tuple[Int[Array, "r p _"], Float[Array, "r p _"]]:
    """Computes the features of an axis that each cell averages, and their weights.

    Args:
        start: [R] start of each box, in features.
        end: [R] end of each box, in features.
        limit: [R] number of features of the axis.
        cells: P.
        aligned: As in `roi_align`.
        count: [R] samples per cell, in the dtype of `start`.
        most: S, the largest `count`.

    Returns:
        Two [R, P, 2 * S], positions (int32) and weights: two neighbors a sample.
    """
    if aligned:
        start, end = start - 0.5, end - 0.5
    size = end - start if aligned else jnp.maximum(end - start, 1)
    start, size, limit, count = (x[:, None, None] for x in (start, size, limit, count))
    size = size / cells
    cell = jnp.arange(cells, dtype=start.dtype)[None, :, None]
    sample = jnp.arange(most, dtype=start.dtype)[None, None]
    step = size / jnp.maximum(count, 1)
    place = start + cell * size + (sample + 0.5) * step
    far = limit.astype(start.dtype)
    inside = (sample < count) & (place >= -1) & (place <= far)
    place = jnp.clip(place, 0, far - 1)
    low = place.astype(jnp.int32)
    part = place - low
    weight = jnp.concatenate([1 - part, part], axis=-1) / jnp.maximum(count, 1)
    inside = jnp.concatenate([inside, inside], axis=-1)
    both = jnp.concatenate([low, jnp.minimum(low + 1, limit - 1)], axis=-1)
    return both, jnp.where(inside, weight, 0)
