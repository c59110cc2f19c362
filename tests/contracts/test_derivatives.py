"""Functions with a gradient of their own have second derivatives too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, ops

LABELS = np.random.default_rng(1).integers(0, 2, (1, 4, 4)).astype(np.int32)
VALID = np.ones((1, 4, 4), bool)


def _pooled(x):
    options = {"output_size": (2, 2), "spatial_scale": 1.0, "sampling_ratio": 1}
    return ops.roi_align(x[0], np.float32([[0, 0, 3, 3]]), aligned=True, **options)


FUNCTIONS = {
    "soft_skeleton": lambda x: ops.soft_skeleton(x, iterations=2),
    "soft_cldice": lambda x: losses.soft_cldice(x, LABELS, VALID),
    "unified": lambda x: losses.asymmetric_unified_focal(x, LABELS, VALID),
    "roi_align": _pooled,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_equal_central_differences(name, rng):
    with jax.enable_x64(True):
        x, along = rng.random((1, 4, 4, 2)), rng.normal(size=(1, 4, 4, 2))

        def total(x):
            return jnp.sum(FUNCTIONS[name](x) ** 2)

        grad = jax.jit(jax.grad(total))
        step = 1e-5
        want = (grad(x + step * along) - grad(x - step * along)) / (2 * step)
        assert np.abs(want).max() > 1e-3
        forward = jax.jvp(jax.grad(total), (x,), (along,))[1]
        reverse = jax.grad(lambda x: jnp.sum(jax.grad(total)(x) * along))(x)
        np.testing.assert_allclose(forward, want, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(reverse, want, rtol=1e-6, atol=1e-7)
        if name != "roi_align":  # Its docstring says so.
            slope = jax.jvp(total, (x,), (along,))[1]
            np.testing.assert_allclose(slope, np.sum(grad(x) * along), rtol=1e-9)
