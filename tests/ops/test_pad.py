import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 2),
    more=st.tuples(*[st.integers(0, 11)] * 2),
)
def test_equals_numpy_reflection(shape, more):
    x = np.arange(2 * shape[0] * shape[1]).reshape(2, *shape, 1)
    want = np.pad(x, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), mode="reflect")
    got = ops.reflect_pad(x, (shape[0] + more[0], shape[1] + more[1]))
    np.testing.assert_array_equal(got, want)


def test_by_hand():
    got = ops.reflect_pad(jnp.arange(3)[None, None], (2, 8))
    np.testing.assert_array_equal(got[0], [[0, 1, 2, 1, 0, 1, 2, 1]] * 2)


def test_message():
    with pytest.raises(ValueError, match="from 1x1 to 2x2 pixels, got 3x1"):
        ops.reflect_pad(jnp.zeros((1, 3, 1)), (2, 2))
    with pytest.raises(ValueError, match="got 0x4"):
        ops.reflect_pad(jnp.zeros((1, 0, 4)), (2, 4))


def test_round_up():
    assert [ops.round_up(n, 8) for n in (1, 7, 8, 9)] == [8, 8, 8, 16]
