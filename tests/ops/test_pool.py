import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops


def _theirs(x):
    return nn.max_pool(x, (2, 2), strides=(2, 2))


@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradient(f, x, weight):
    value, vjp = jax.vjp(f, x)
    return value, vjp(weight)[0]


# Few shapes, because each compiles.
@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(2, 2, 1), (3, 7, 2), (6, 4, 3)]),
    levels=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_equal_flax_ties_included(shape, levels, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels, (2, *shape)).astype(np.float32)
    weight = rng.normal(size=(2, shape[0] // 2, shape[1] // 2, shape[2]))
    weight = weight.astype(np.float32)
    ours, gradient = _value_and_gradient(ops.max_pool_2x2, x, weight)
    theirs, their_gradient = _value_and_gradient(_theirs, x, weight)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(gradient, their_gradient)


def test_one_pixel_has_no_block():
    assert ops.max_pool_2x2(jnp.zeros((2, 1, 3, 4))).shape == (2, 0, 1, 4)


def test_nan_anywhere_in_a_block_gives_nan():
    x = np.zeros((4, 2, 2, 1), np.float32)
    x[np.arange(4), [0, 0, 1, 1], [0, 1, 0, 1]] = np.nan
    assert np.isnan(ops.max_pool_2x2(x)).all()


def test_keeps_bfloat16():
    assert ops.max_pool_2x2(jnp.zeros((1, 2, 2, 1), jnp.bfloat16)).dtype == jnp.bfloat16
