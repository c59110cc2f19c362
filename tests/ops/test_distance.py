import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segjax import ops

SHAPES = [(1, 1), (1, 9), (9, 1), (7, 5), (2, 33), (16, 16), (65, 1), (40, 23)]
SHAPES += [(64, 97), (65, 97)]
MASKS = 50  # Of each shape, at a time: 500 and more in all, ten compiles.


def _masks(rng, shape):
    """Noise of every density, smooth blobs, and one False pixel."""
    noise = rng.random((MASKS, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3))
    masks = noise > rng.choice([0.001, 0.1, 0.5, 0.9], (MASKS, 1, 1))
    level = np.median(smooth, axis=(1, 2), keepdims=True)
    masks = np.where(np.arange(MASKS)[:, None, None] % 2, masks, smooth > level)
    masks[:5] = True
    rows, columns = rng.integers(0, shape[0], MASKS), rng.integers(0, shape[1], MASKS)
    masks[np.arange(MASKS), rows, columns] = (
        False  # Images without False pixels are tested separately.
    )
    return masks


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 999))
def test_equals_scipy(shape, seed):
    masks = _masks(np.random.default_rng(seed), shape)
    got = jax.jit(ops.distance_transform)(masks)
    want = np.stack([ndimage.distance_transform_edt(mask) for mask in masks])
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert got.dtype == jnp.float32


@pytest.mark.parametrize("spacing", [(2.0, 0.5), (0.1, 7.0)])
def test_spacing_equals_scipy(rng, spacing):
    masks = _masks(rng, (20, 31))[:20]
    got = jax.jit(functools.partial(ops.distance_transform, spacing=spacing))(masks)
    want = [ndimage.distance_transform_edt(mask, sampling=spacing) for mask in masks]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 6, 7), (9, 4, 1), (5, 8, 11)])
def test_volumes_equal_scipy(rng, shape):
    spacing = (3.0, 0.5, 1.0)
    masks = (
        rng.random((4, *shape)) < np.array([0.5, 0.9, 0.97, 0.99])[:, None, None, None]
    )
    masks[:, 0, 0, 0] = False
    got = jax.jit(functools.partial(ops.distance_transform, spacing=spacing))(masks)
    want = [ndimage.distance_transform_edt(mask, sampling=spacing) for mask in masks]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("shape", [(200, 200), (5, 16), (5, 17), (3, 128), (3, 129)])
def test_large_regions_are_exact(shape):
    # Nearest pixels are up to a whole row away, across every border between blocks.
    height, width = shape
    y, x = np.mgrid[:height, :width]
    masks = np.ones((6, height, width), bool)
    masks[0, :, 0] = masks[1, :, -1] = masks[2, 0, 0] = masks[3, -1, -1] = False
    masks[4] = np.hypot((y - height / 2) / height, (x - width / 2) / width) < 0.48
    masks[5] = ~np.isclose(np.hypot(y - 20, x - width / 3), width / 4, atol=0.7)
    masks[5, 0, 0] = False
    got = np.asarray(jax.jit(ops.distance_transform)(masks))
    want = np.stack([ndimage.distance_transform_edt(mask) for mask in masks])
    np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("width", [1.0, 1.5])
def test_does_not_stop_too_early(width):
    # Every column has a False pixel, but many pixels are nearer to the side.
    mask = np.ones((40, 60), bool)
    mask[-1] = mask[:, 0] = False
    got = ops.distance_transform(mask, spacing=(1.0, width))
    want = ndimage.distance_transform_edt(mask, sampling=(1.0, width))
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_by_hand():
    mask = np.ones((3, 4), bool)
    mask[2, 0] = False
    want = np.sqrt([[4, 5, 8, 13], [1, 2, 5, 10], [0, 1, 4, 9]])
    np.testing.assert_allclose(ops.distance_transform(mask), want, rtol=1e-6)


def test_inf_without_false_pixels(rng):
    masks = rng.random((3, 8, 9)) < 0.5
    masks[1] = True
    got = np.asarray(ops.distance_transform(masks))
    assert np.isposinf(got[1]).all()
    for i in (0, 2):  # The other images are unaffected.
        want = ndimage.distance_transform_edt(masks[i])
        np.testing.assert_allclose(got[i], want, atol=1e-5)
    np.testing.assert_array_equal(ops.distance_transform(~masks)[1], 0)


def test_vmap_and_leading_axes_agree(rng):
    masks = rng.random((2, 3, 8, 9)) < 0.8
    masks[0, 0] = True
    got = jax.jit(jax.vmap(jax.vmap(ops.distance_transform)))(masks)
    np.testing.assert_array_equal(got, ops.distance_transform(masks))
    np.testing.assert_array_equal(got[1, 2], ops.distance_transform(masks[1, 2]))


def test_gradient_is_zero(rng):
    x = rng.random((8, 9)).astype(np.float32)

    def total(x):
        return jnp.sum(x * ops.distance_transform(x < 0.7))

    np.testing.assert_allclose(
        jax.grad(total)(x), ops.distance_transform(x < 0.7), rtol=1e-6
    )


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, 1.0, 1.0, 1.0)])
def test_spacing_message(spacing):
    with pytest.raises(ValueError, match=r"needs \(height, width\) .* got \("):
        ops.distance_transform(np.ones((2, 2), bool), spacing=spacing)
