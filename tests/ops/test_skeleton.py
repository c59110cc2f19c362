import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segjax import ops
from segjax.ops import skeleton
from tests import plain_form

CROSS = ndimage.generate_binary_structure(2, 1)


def _transcribed(x, iterations):
    """Algorithm 1 of the paper on one channel, by SciPy's gray morphology."""

    def erode(x):
        return ndimage.minimum_filter(x, footprint=CROSS, mode="nearest")

    def opened(x):
        return ndimage.maximum_filter(erode(x), size=3, mode="nearest")

    total = np.maximum(x - opened(x), 0)
    for _ in range(iterations):
        x = erode(x)
        rest = np.maximum(x - opened(x), 0)
        total = total + np.maximum(rest - total * rest, 0)
    return total


def test_equals_the_paper(rng):
    x = ndimage.gaussian_filter(rng.random((2, 24, 17, 3)), (0, 1, 1, 0))
    x = np.float32((x - x.min()) / (x.max() - x.min()))
    for iterations in (1, 4):
        got = ops.soft_skeleton(x, iterations=iterations)
        for b in range(2):
            for c in range(3):
                want = _transcribed(x[b, :, :, c], iterations)
                np.testing.assert_allclose(got[b, :, :, c], want, atol=1e-5)


def test_a_bar_shrinks_to_its_center_line():
    bar = np.zeros((1, 9, 20, 1), np.float32)
    bar[0, 2:7, 2:18] = 1
    line = np.asarray(ops.soft_skeleton(bar, iterations=4))[0, :, :, 0]
    assert (line[4, 4:16] == 1).all()
    assert line[[2, 3, 5, 6], 6:14].sum() == 0


def test_gradient_equals_central_differences(rng):
    with jax.enable_x64(True):
        x = rng.random((1, 6, 5, 2))
        weights = rng.normal(size=x.shape)

        @jax.jit
        def total(x):
            return jnp.sum(weights * ops.soft_skeleton(x, iterations=2))

        grad = np.asarray(jax.grad(total)(x)).ravel()
        for i in range(x.size):
            bump = np.zeros(x.size)
            bump[i] = 1e-6
            bump = bump.reshape(x.shape)
            want = (total(x + bump) - total(x - bump)) / 2e-6
            np.testing.assert_allclose(grad[i], want, atol=1e-7)


def test_ties_share_the_gradient():
    # In a flat image all neighbors tie, and the gradient is preserved.
    grad = jax.grad(lambda x: jnp.sum(skeleton._largest(x, (1, 2))))(
        jnp.ones((1, 7, 7, 1))
    )
    np.testing.assert_allclose(grad.sum(), 49, rtol=1e-6)
    np.testing.assert_allclose(grad[0, 3, 3, 0], 1, rtol=1e-6)  # 5 times a fifth.


def _largest(x):
    return skeleton._largest(x, (1, 2))


def _plainly_largest(x):
    shifted = [x]
    for axis in (1, 2):
        pad = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(x, pad, constant_values=-jnp.inf)
        shifted += [
            jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
            for i in (0, 2)
        ]
    return jnp.max(jnp.stack(shifted), axis=0)  # Ties share the gradient.


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1, 1), (2, 1, 5, 1), (1, 7, 5, 3)]),
    levels=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_maxima_equal_the_plain_form(shape, levels, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels, shape).astype(np.float32)
    plain_form.check(_largest, _plainly_largest, x, rng=rng)
