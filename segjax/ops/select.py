"""Order statistics and sorting that are fast on CPUs, where XLA's sort is slow."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.typing import Array


def kth_largest(
    values: Float[Array, "*batch n"], k: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Finds the k-th largest value of each row, by bisection of its bits.

    The bits of non-negative floats have the order of the floats. Each pass over the
    values determines one bit, so the time does not depend on k, which may be traced.

    Args:
        values: [..., N] without NaN. Negative values are ignored: use -1 for padding.
        k: [...] from 1 to the number of non-negative values in the row.

    Returns:
        [...] in the dtype of `values`; 0 where k is too large.
    """
    values = jnp.asarray(values)
    wide = jnp.finfo(values.dtype).bits
    integer = jnp.dtype(f"int{wide}")
    # The bits of negative values, -0.0 included, are negative integers.
    bits = jax.lax.bitcast_convert_type(values, integer)

    def settle(i, found):
        candidate = found | (jnp.ones((), integer) << (wide - 2 - i))
        count = jnp.sum(bits >= candidate[..., None], axis=-1, dtype=jnp.int32)
        return jnp.where(count >= k, candidate, found)

    found = jax.lax.fori_loop(
        0, wide - 1, settle, jnp.zeros(values.shape[:-1], integer)
    )
    return jax.lax.bitcast_convert_type(found, values.dtype)


def argsort(values: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Sorts each row in stable ascending order; equals `jnp.argsort(values, axis=-1)`.

    On CPUs, XLA sorts pairs much more slowly than single integers. There, each of two
    or more passes sorts some bits of the key together with the position in one integer.

    Args:
        values: [..., N] without NaN. No gradient flows through.

    Returns:
        [..., N] positions, int32.
    """
    values = jax.lax.stop_gradient(jnp.asarray(values))
    if values.dtype != jnp.float32:
        return _argsort(values)
    return jax.lax.platform_dependent(values, cpu=_radix_argsort, default=_argsort)


def _argsort(values: jax.Array) -> jax.Array:
    return jnp.argsort(values, axis=-1, stable=True).astype(jnp.int32)


def _radix_argsort(values: jax.Array) -> jax.Array:
    """Radix `argsort` of float32, from the low digits of the key to the high ones."""
    place = max(values.shape[-1] - 1, 1).bit_length()  # Bits of a position.
    digit = 32 - place
    sign = jnp.uint32(1 << 31)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    bits = jnp.where(bits == sign, jnp.uint32(0), bits)  # -0.0 equals 0.0.
    key = jnp.where(bits >= sign, ~bits, bits | sign)
    positions = jax.lax.broadcasted_iota(jnp.uint32, values.shape, values.ndim - 1)
    order = positions.astype(jnp.int32)
    for shift in range(0, 32, digit):
        part = (key >> shift) & jnp.uint32((1 << digit) - 1)
        part = jnp.take_along_axis(part, order, axis=-1)
        packed = jax.lax.sort(part << place | positions, dimension=-1)
        step = (packed & jnp.uint32((1 << place) - 1)).astype(jnp.int32)
        order = jnp.take_along_axis(order, step, axis=-1)
    return order
