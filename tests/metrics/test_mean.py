import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import metrics


def test_by_hand():
    mean = metrics.Mean.from_batch(jnp.asarray([1.0, 4.0]), jnp.asarray([1.0, 2.0]))
    assert mean.compute() == {"mean": pytest.approx(3.0)}


def test_padding_is_ignored():
    values, weight = jnp.asarray([1.0, np.nan, np.inf]), jnp.asarray([1.0, 0.0, 0.0])
    assert jax.jit(metrics.Mean.from_batch)(values, weight).compute() == {"mean": 1.0}


def test_nan_for_zero_weight():
    mean = metrics.Mean.from_batch(jnp.ones(2), jnp.zeros(2))
    assert np.isnan(mean.compute()["mean"])


def test_float64_on_the_host():
    # In float32, 2**24 + 1 is 2**24.
    large = metrics.Mean(np.float32(2**24), np.float32(1))
    small = metrics.Mean(np.float32(1), np.float32(1))
    assert large.merge(small).merge(small).total == 2**24 + 2


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(-100, 100), min_size=2, max_size=12),
    cut=st.integers(1, 11),
)
def test_any_batching_is_the_same(values, cut):
    x, weight = np.float32(values), np.ones(len(values), np.float32)
    cut = min(cut, len(values) - 1)
    first = metrics.Mean.from_batch(x[:cut], weight[:cut])
    second = metrics.Mean.from_batch(x[cut:], weight[cut:])
    want = {"mean": pytest.approx(np.mean(values))}
    assert first.merge(second).compute() == want
    assert second.merge(first).compute() == want
