"""A number that changes when any bit of a tree of arrays does, computed in place."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt32

from segjax.typing import Array, PyTree


def digest(tree: PyTree) -> UInt32[Array, ""]:
    """A 32-bit digest of the bits of all leaves, of their order and of their places.

        sum of mix(bits(x[l, i]) + mix(i) + mix(l)) over leaves l, elements i, mod 2**32

    with `mix` the finaliser of MurmurHash3. Integer sums do not depend on their
    order: neither layout, sharding nor the number of devices changes the digest. Two
    trees that differ agree with probability 2**-32; it is no defence against intent.

    Args:
        tree: Arrays of floats, integers, booleans or typed keys.

    Returns:
        uint32 scalar; 0 of a tree without elements.

    Reference:
        Appleby, MurmurHash3, `fmix32`, 2011.
    """
    parts = [_leaf(x, place) for place, x in enumerate(jax.tree.leaves(tree))]
    return sum(parts, jnp.zeros((), jnp.uint32))


def _leaf(x: Array, place: int) -> Array:
    words = _words(jnp.asarray(x)).reshape(-1)
    index = jax.lax.iota(jnp.uint32, words.size)
    salted = words + _mix(index) + _mix(jnp.asarray(place, jnp.uint32))
    return jnp.sum(_mix(salted), dtype=jnp.uint32)


def _words(x: Array) -> Array:
    """The bits of an array as unsigned words of at most 32 bits."""
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
