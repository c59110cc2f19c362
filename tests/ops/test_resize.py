import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops
from tests import plain_form

# Few, because each compiles: one pixel, one channel, one row, odd sizes.
SHAPES = st.sampled_from([(1, 1, 1, 3, 2), (2, 3, 5, 1, 1), (2, 1, 4, 2, 3)])


def _flax_2x2(x, kernel):
    layer = nn.ConvTranspose(kernel.shape[-1], (2, 2), strides=(2, 2), use_bias=False)
    return layer.apply({"params": {"kernel": kernel}}, x)


def _flax_4x4(x, kernel):
    layer = nn.ConvTranspose(
        kernel.shape[-1], (4, 4), strides=(2, 2), use_bias=False, padding="VALID"
    )
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return layer.apply({"params": {"kernel": kernel}}, x)[:, 3:-3, 3:-3]


@pytest.mark.parametrize(
    ("ours", "theirs", "size"),
    [
        (ops.transposed_conv_2x2, _flax_2x2, 2),
        (ops.transposed_conv_4x4, _flax_4x4, 4),
    ],
)
@settings(max_examples=10, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_transposed_convolutions_equal_flax(ours, theirs, size, shape, seed):
    *image, inputs, outputs = shape
    rng = np.random.default_rng(seed)
    draw = lambda *s: rng.normal(size=s).astype(np.float32)  # noqa: E731
    x, kernel = draw(*image, inputs), draw(size, size, inputs, outputs)
    plain_form.check(ours, theirs, x, kernel, rng=rng)


def test_depth_to_space_by_hand():
    x = jnp.arange(8).reshape(1, 1, 2, 4).astype(float)
    got = ops.depth_to_space(x, 2)[0, :, :, 0]
    np.testing.assert_array_equal(got, [[0, 1, 4, 5], [2, 3, 6, 7]])


@pytest.mark.parametrize("size", [(7, 9), (3, 2), (1, 11)])
def test_bilinear_equals_scipy_at_pixel_centers(rng, size):
    x = rng.normal(size=(4, 5)).astype(np.float32)
    rows, columns = [
        (np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(size, x.shape, strict=True)
    ]
    where = np.meshgrid(rows, columns, indexing="ij")
    want = scipy.ndimage.map_coordinates(x, where, order=1, mode="nearest")
    got = ops.resize_bilinear(x[None, :, :, None], size)[0, :, :, 0]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_nearest_keeps_labels():
    label = jnp.array([[[1, 2], [3, 255]]])
    got = ops.resize_nearest(label, (4, 4))
    assert got.dtype == label.dtype
    np.testing.assert_array_equal(got[0], np.kron(label[0], np.ones((2, 2), int)))


@pytest.mark.parametrize("factor", [2, 8])
def test_bilinear_kernel_is_a_partition_of_unity(factor):
    kernel = np.asarray(ops.bilinear_kernel(factor))
    # Every output pixel gets the four weights that are `factor` apart: they sum to 1.
    sums = kernel.reshape(2, factor, 2, factor).sum(axis=(0, 2))
    np.testing.assert_allclose(sums, 1, rtol=1e-6)


def test_bilinear_kernel_by_hand():
    row = np.array([1, 3, 3, 1]) / 4
    np.testing.assert_allclose(ops.bilinear_kernel(2), np.outer(row, row), rtol=1e-6)
