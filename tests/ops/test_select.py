import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segjax import ops

kth_largest, argsort = jax.jit(ops.kth_largest), jax.jit(ops.argsort)


@settings(max_examples=20, deadline=None)
@given(n=st.sampled_from([1, 2, 7, 300]), seed=st.integers(0, 999))
def test_kth_largest_equals_a_sort(n, seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, -0.0, 1e-40, 0.5, 0.5000001, 3.0, 1e30, np.inf], (40, n))
    values = np.float32(values)
    k = rng.integers(1, n + 1, 40).astype(np.int32)
    got = kth_largest(values, k)
    want = np.sort(values, axis=-1)[np.arange(40), n - k]
    np.testing.assert_array_equal(got, want)


def test_negative_values_are_ignored(rng):
    values = rng.random((5, 30)).astype(np.float32)
    masked = np.concatenate([values, np.full((5, 9), -1, np.float32)], axis=-1)
    k = np.full(5, 30, np.int32)
    np.testing.assert_array_equal(ops.kth_largest(masked, k), values.min(-1))
    np.testing.assert_array_equal(ops.kth_largest(masked, k + 1), 0)


def test_kth_largest_in_float64(rng):
    with jax.enable_x64(True):
        values = 1 + 1e-12 * rng.random((3, 50))
        got = ops.kth_largest(values, np.int32([1, 25, 50]))
        want = np.sort(values)[[0, 1, 2], [49, 25, 0]]
        np.testing.assert_array_equal(got, want)


@settings(max_examples=20, deadline=None)
@given(n=st.sampled_from([1, 2, 3, 64, 65]), seed=st.integers(0, 999))
@example(n=70_000, seed=0)
def test_argsort_equals_numpy(n, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, 2, n)).astype(np.float32)
    values[1] = rng.choice([-np.inf, -1.0, -1e-40, -0.0, 0.0, 2.0, np.inf], (2, n))
    got = argsort(values)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, np.argsort(values, axis=-1, kind="stable"))


def test_argsort_is_the_same_on_every_device(rng):
    # The branch for accelerators, which is the plain sort.
    from segjax.ops import select

    values = rng.choice([-1.0, -0.0, 0.0, 2.0], (3, 50)).astype(np.float32)
    values = jnp.asarray(values)
    np.testing.assert_array_equal(
        select._argsort(values), select._radix_argsort(values)
    )
    with jax.enable_x64(True):
        wide = 1 + 1e-12 * rng.random((3, 50))
        want = np.argsort(wide, axis=-1, kind="stable")
        np.testing.assert_array_equal(ops.argsort(wide), want)
