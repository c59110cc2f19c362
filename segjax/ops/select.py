"""Order statistics and orders that are fast on a CPU, where XLA's sort is not."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.typing import Array


def kth_largest(
    values: Float[Array, "*batch n"], k: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """The k-th largest of each row, exactly, by bisection of its bits.

    Bits of floats of at least 0 are in the order of the floats. A pass over the
    values settles one bit, so the time does not depend on k, which may be traced.

    Args:
        values: [..., N]. Negative values, NaN excluded, are smaller than any that
            can be found: use -1 for what does not count.
        k: [...] from 1; no more than the values of at least 0 in the row.

    Returns:
        [...] in the dtype of `values`; 0 where k is larger than it may be.
    """
    values = jnp.asarray(values)
    wide = jnp.finfo(values.dtype).bits
    integer = jnp.dtype(f"int{wide}")
    # Bits of negative values are negative integers. (-0.0 too: found stays 0.)
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
    """Stable ascending order of each row; equals `jnp.argsort(values, axis=-1)`.

    On the CPU a sort of pairs costs six sorts of single integers. So there each of
    two or more passes sorts some bits of the key and the position in one integer.

    Args:
        values: [..., N] without NaN. No gradient flows through the order.

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
    """`argsort` of float32, from the low digit of the key to the high one."""
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
