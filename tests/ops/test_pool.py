import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops
from tests import plain_form


def _windows_2x2(x):
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _windows_3x3(x):
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


# Few shapes, because each compiles.
@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 2, 2, 1), (2, 3, 7, 2), (2, 6, 4, 3)]),
    levels=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_equal_flax_ties_included(shape, levels, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels, shape).astype(np.float32)
    weight = rng.normal(size=(shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
    arguments = (x,), weight.astype(np.float32)
    got = plain_form.value_and_gradients(ops.max_pool_2x2, *arguments)
    want = plain_form.value_and_gradients(_windows_2x2, *arguments)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1][0], want[1][0])


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1, 1), (2, 7, 5, 3), (1, 1, 2, 1), (2, 8, 6, 1)]),
    seed=st.integers(0, 99),
)
def test_3x3_equals_flax(shape, seed):
    rng = np.random.default_rng(seed)
    # Distinct numbers: at a tie gradients may differ.
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    plain_form.check(ops.max_pool_3x3, _windows_3x3, x, rng=rng)


def test_one_pixel_has_no_block():
    assert ops.max_pool_2x2(jnp.zeros((2, 1, 3, 4))).shape == (2, 0, 1, 4)


def test_nan_anywhere_in_a_block_gives_nan():
    x = np.zeros((4, 2, 2, 1), np.float32)
    x[np.arange(4), [0, 0, 1, 1], [0, 1, 0, 1]] = np.nan
    assert np.isnan(ops.max_pool_2x2(x)).all()


def test_keeps_bfloat16():
    assert ops.max_pool_2x2(jnp.zeros((1, 2, 2, 1), jnp.bfloat16)).dtype == jnp.bfloat16


def test_mean_pool_equals_flax():
    x = np.random.default_rng(0).normal(size=(2, 6, 9, 3)).astype(np.float32)
    want = nn.avg_pool(x, (3, 3), strides=(3, 3))
    np.testing.assert_allclose(ops.mean_pool(x, 3), want, atol=1e-6)
    np.testing.assert_array_equal(ops.mean_pool(x, 1), x)
