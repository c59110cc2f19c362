"""Exact distances to the two nearest instances of a map."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array

# (squared distance, instance) of the nearest, and of the nearest other instance.
_Two = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def two_nearest(
    instances: Integer[Array, "*batch h w"] | Bool[Array, "*batch h w"],
    *,
    max_distance: float = math.inf,
) -> tuple[Float[Array, "*batch h w"], Float[Array, "*batch h w"]]:
    """Computes the distances of each pixel to the nearest and second nearest instance.

    Exact and separable like `distance_transform`: each pixel first finds the two
    nearest instances in its column, then the two nearest of those along its row. The
    time does not depend on the number of instances.

    Args:
        instances: [..., H, W] instance ids of any integer dtype, 0 for background.
        max_distance: Largest exact distance, in pixels. Larger distances may be
            overestimated, up to inf, because the search along rows ends there.

    Returns:
        Two [..., H, W] float32, in pixels between centers: 0 in the first at pixels of
        an instance; inf if the image has no (second) instance.

    Raises:
        ValueError: If ids are no integers, there are no pixels, or max_distance is
            below 0.
    """
    checks.shapes(instances=(instances, "... H W"))
    if 0 in instances.shape[-2:]:
        raise UserError(f"instances needs pixels, got {list(instances.shape)}.")
    if not max_distance >= 0:
        raise UserError(
            f"two_nearest needs max_distance of at least 0, got {max_distance}. Leave "
            f"it out for no limit."
        )
    found = _along_rows(_down_columns(_ids(instances)), max_distance)
    return jnp.sqrt(found[0]), jnp.sqrt(found[2])


def _ids(instances: Array) -> jax.Array:
    """int32 ids; NumPy's wider ones are numbered, because JAX would cut their bits."""
    if isinstance(instances, np.ndarray) and instances.dtype.itemsize > 4:
        if instances.dtype.kind in "iu":
            place = np.unique(instances, return_inverse=True)[1]
            place = place.reshape(instances.shape) + 1
            instances = np.where(instances == 0, 0, place)
    return checks.as_class_ids("instances", instances, num_classes=0)


def _down_columns(instances: jax.Array) -> _Two:
    """The two nearest instances of each column."""
    rows = jnp.moveaxis(instances, -2, 0)
    never = jnp.full(rows.shape[1:], jnp.inf, jnp.float32)
    start = (never, jnp.zeros_like(rows[0]), never, jnp.zeros_like(rows[0]))

    def look(seen, row):
        near, first, far, second = seen
        near, far = near + 1, far + 1
        new = (row != 0) & (row != first)  # The first becomes the second.
        far, second = jnp.where(new, near, far), jnp.where(new, first, second)
        near = jnp.where(row != 0, jnp.float32(0), near)
        seen = near, jnp.where(new, row, first), far, second
        return seen, (near**2, seen[1], far**2, second)

    _, above = jax.lax.scan(look, start, rows)
    _, (near, first, far, second) = jax.lax.scan(look, start, rows, reverse=True)
    found = _insert(_insert(above, near, first), far, second)
    near, first, far, second = (jnp.moveaxis(x, 0, -2) for x in found)
    return near, first, far, second


def _along_rows(start: _Two, max_distance: float) -> _Two:
    """Merges the candidates of all pixels of a row, over growing offsets."""
    size = start[0].shape[-1]
    pad = [(0, 0)] * (start[0].ndim - 1) + [(size, size)]
    fills = (jnp.inf, 0, jnp.inf, 0)
    padded = [
        jnp.pad(x, pad, constant_values=fill)
        for x, fill in zip(start, fills, strict=True)
    ]

    def more(carry):
        # Continues at inf, because a second instance may still be found.
        offset, found = carry
        squared = jnp.float32(offset) ** 2
        return (offset < min(size, max_distance + 1)) & (squared < jnp.max(found[2]))

    def widen(carry):
        offset, found = carry
        squared = jnp.float32(offset) ** 2
        for begin in (size + offset, size - offset):
            near, name, far, other = (
                jax.lax.dynamic_slice_in_dim(x, begin, size, axis=-1) for x in padded
            )
            found = _insert(found, near + squared, name)
            found = _insert(found, far + squared, other)
        return offset + 1, found

    return jax.lax.while_loop(more, widen, (jnp.int32(1), start))[1]


def _insert(found: _Two, squared: jax.Array, name: jax.Array) -> _Two:
    """Inserts one candidate, which may be an instance found before."""
    near, first, far, second = found
    same, nearer = name == first, squared < near
    new_far = jnp.where(
        nearer,
        jnp.where(same, far, near),
        jnp.where(same, far, jnp.minimum(far, squared)),
    )
    new_second = jnp.where(
        nearer,
        jnp.where(same, second, first),
        jnp.where(same | (squared >= far), second, name),
    )
    return (
        jnp.where(nearer, squared, near),
        jnp.where(nearer, name, first),
        new_far,
        new_second,
    )
