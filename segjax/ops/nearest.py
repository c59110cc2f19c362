"""Exact distances to the two nearest instances of a map."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.typing import Array

# (squared distance, instance) of the nearest, and of the nearest other instance.
_Two = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def two_nearest(
    instances: Int[Array, "*batch h w"],
) -> tuple[Float[Array, "*batch h w"], Float[Array, "*batch h w"]]:
    """Distances of each pixel to the nearest and the second nearest instance.

    Exact and separable like `distance_transform`: each pixel first finds the two
    nearest instances of its column, then the two nearest of those along its row.
    The two nearest of the image are among them, so the time does not depend on how
    many instances there are.

    Args:
        instances: [..., H, W] 0 for background, any other number an instance.

    Returns:
        Two [..., H, W] float32, in pixels between centres: 0 in the first at pixels
        of an instance; inf where the image has no such instance.
    """
    instances = jnp.asarray(instances)
    on = instances != 0
    # Twice the same would count as two: an instance's pixel is its nearest only.
    found = (
        jnp.where(on, jnp.float32(0), jnp.inf),
        instances,
        jnp.full(instances.shape, jnp.inf, jnp.float32),
        jnp.zeros_like(instances),
    )
    found = _along(found, axis=instances.ndim - 2)
    found = _along(found, axis=instances.ndim - 1)
    return jnp.sqrt(found[0]), jnp.sqrt(found[2])


def _along(start: _Two, *, axis: int) -> _Two:
    """Merges what all pixels of a line have found, over growing offsets."""
    size = start[0].shape[axis]
    pad = [(size, size) if i == axis else (0, 0) for i in range(start[0].ndim)]
    padded = [
        jnp.pad(x, pad, constant_values=jnp.inf if x.dtype == jnp.float32 else 0)
        for x in start
    ]

    def more(carry):
        # inf, too, keeps it going: nothing says that there is no second instance.
        offset, found = carry
        squared = jnp.float32(offset) ** 2
        return (offset < size) & (squared < jnp.max(found[2]))

    def widen(carry):
        offset, found = carry
        squared = jnp.float32(offset) ** 2
        for begin in (size + offset, size - offset):
            near, name, far, other = (
                jax.lax.dynamic_slice_in_dim(x, begin, size, axis=axis) for x in padded
            )
            found = _insert(found, near + squared, name)
            found = _insert(found, far + squared, other)
        return offset + 1, found

    return jax.lax.while_loop(more, widen, (jnp.int32(1), start))[1]


def _insert(found: _Two, squared: jax.Array, name: jax.Array) -> _Two:
    """Takes in one more candidate, which may be an instance found before."""
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
