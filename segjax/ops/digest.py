"""A digest of the bits of a tree of arrays, computed on the device."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt32

from segjax.typing import Array, PyTree

_GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: odd, and spreads positions.


def digest(tree: PyTree) -> UInt32[Array, ""]:
    """Computes a 32-bit digest of the bits of all leaves and of their order.

        leaf[l] = sum over elements i of  mix(bits(x[l, i]) + c * i)   mod 2**32
        digest  = sum over leaves l of    mix(leaf[l] + c * (l + 1))   mod 2**32

    with `mix` the finalizer of MurmurHash3 and c odd. Integer sums are independent of
    their order, so the digest does not depend on layout, sharding or the number of
    devices. A change of a single element always changes it; other changes are missed
    with probability 2**-32. It is not a cryptographic hash.

    Args:
        tree: Arrays of floats, integers, booleans or typed keys. Bits are compared, not
            values: -0.0 differs from 0.0, and NaNs differ by their payload. Shapes are
            ignored.

    Returns:
        uint32 scalar; 0 for a tree without leaves.

    Reference:
        Appleby, MurmurHash3, `fmix32`, 2011. MurmurHash3 chains the words; this sums
        them.
    """
    leaves = [_leaf(jnp.asarray(x)) for x in jax.tree.leaves(tree)]
    salted = [_mix(leaf + _salt(place)) for place, leaf in enumerate(leaves, 1)]
    return sum(salted, jnp.zeros((), jnp.uint32))


def _leaf(x: Array) -> Array:
    words = _words(x).reshape(-1)
    places = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(_GOLDEN)
    return jnp.sum(_mix(words + places), dtype=jnp.uint32)


def _salt(place: int) -> np.uint32:
    return np.uint32(_GOLDEN * place % 2**32)


def _words(x: Array) -> Array:
    """The bits of an array as unsigned words of at most 32 bits, in uint32."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    bits = min(32, 8 * np.dtype(x.dtype).itemsize)
    return jax.lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)


def _mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
