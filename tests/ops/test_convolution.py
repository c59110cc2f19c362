import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops
from segjax.ops import convolution

SIZES = st.sampled_from([1, 2, 3, 5, 8, 17])
KERNELS = st.sampled_from([(1, 1), (3, 3), (7, 7), (5, 1), (1, 7)])


@functools.partial(jax.jit, static_argnums=0)
def both(form, x, w, seen):
    """Value and gradients."""
    value, pull = jax.vjp(form, x, w)
    return value, pull(seen)


# The same shapes each time, so that programs are cached.
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    height=SIZES,
    width=SIZES,
    kernel=KERNELS,
    one=st.booleans(),
)
def test_patches_equal_xla(seed, height, width, kernel, one):
    inputs, outputs = (1, 1) if one else (3, 4)
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (2, height, width, inputs))
    w = jax.random.normal(keys[1], (*kernel, inputs, outputs)) / 7
    seen = jax.random.normal(keys[2], (2, height, width, outputs))

    value, grads = both(convolution.conv_by_patches, x, w, seen)
    wanted, wanted_grads = both(convolution.conv_by_xla, x, w, seen)
    np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=2e-6)
    for a, b in zip(grads, wanted_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_patches_are_used_for_large_kernels_on_small_maps_on_cpu(monkeypatch):
    def convolves(height, side):
        x, w = jnp.ones((1, height, height, 2)), jnp.ones((side, side, 2, 2))
        fresh = lambda x, w: ops.conv(x, w)  # noqa: E731  Traced anew each time.
        return "conv_general_dilated" in str(jax.make_jaxpr(fresh)(x, w))

    assert not convolves(4, 7)
    assert not convolves(16, 7)
    assert convolves(17, 7)
    assert convolves(4, 3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert convolves(4, 7)
