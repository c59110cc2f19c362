import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjax.ops.warp import inside, sample_bilinear, sample_nearest
from tests import plain_form


def scipy_sample(image, rows, columns, order):
    # "nearest" repeats the border; what is outside is set to 0 afterwards.
    planes = [
        scipy.ndimage.map_coordinates(
            plane, np.stack([rows, columns]), order=order, mode="nearest"
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    height, width = image.shape[:2]
    out = (rows < -0.5) | (rows > height - 0.5)
    out |= (columns < -0.5) | (columns > width - 0.5)
    return np.where(out[..., None], 0, np.stack(planes, -1))


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (3, 1), (1, 1)])
def test_bilinear_against_scipy(rng, size):
    image = rng.random((*size, 3), np.float32)
    rows = rng.uniform(-2, size[0] + 1, (40, 20)).astype(np.float32)
    columns = rng.uniform(-2, size[1] + 1, (40, 20)).astype(np.float32)
    expected = scipy_sample(image.astype(np.float64), rows, columns, 1)
    got = sample_bilinear(image, rows, columns)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert 0 < (expected == 0).mean() < 1


def test_nearest_against_scipy(rng):
    label = rng.integers(1, 250, (6, 9)).astype(np.int32)
    rows = rng.uniform(-2, 8, (40, 20)).astype(np.float32)
    columns = rng.uniform(-2, 11, (40, 20)).astype(np.float32)
    got = sample_nearest(label, rows, columns)
    assert got.dtype == np.int32
    expected = scipy_sample(label[..., None], rows, columns, 0)[..., 0]
    np.testing.assert_array_equal(got, expected)


def test_by_hand():
    image = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    rows = np.array([[0.5, 0.0, -0.5, -0.51, 1.25]], np.float32)
    columns = np.array([[0.5, 0.25, 0.0, 0.0, 1.5]], np.float32)
    got = sample_bilinear(image[..., None], rows, columns)
    np.testing.assert_allclose(got[0, :, 0], [1.5, 0.25, 0, 0, 3])
    # A position on the edge between two pixels belongs to the later one.
    np.testing.assert_array_equal(
        sample_nearest(image + 1, rows, columns)[0], [4, 1, 1, 0, 4]
    )
    np.testing.assert_array_equal(inside(rows, columns, (2, 2))[0], [1, 1, 1, 0, 1])


def test_nearest_keeps_masks_boolean():
    rows = columns = np.array([[0.0, 5.0]], np.float32)
    got = sample_nearest(np.ones((2, 2), bool), rows, columns)
    assert got.dtype == bool
    np.testing.assert_array_equal(got, [[True, False]])


bilinear, nearest = jax.jit(sample_bilinear), jax.jit(sample_nearest)


@settings(max_examples=50, deadline=None)
@given(
    # XLA flushes denormal numbers to 0.
    image=hnp.arrays(
        np.float32, (4, 5, 2), elements=st.floats(0, 1, width=32, allow_subnormal=False)
    ),
    places=hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(-3, 8, width=32)),
)
def test_a_sample_stays_between_the_extremes(image, places):
    got = np.asarray(bilinear(image, *places))
    assert (got >= min(0, image.min())).all()
    assert (got <= image.max() + 1e-6).all()
    whole = bilinear(image, *np.floor(places))[..., 0]
    near = nearest(image[..., 0], *np.floor(places))
    np.testing.assert_array_equal(whole, near)


def test_distant_and_non_finite_positions_are_outside():
    far = np.array([[1e30, -1e30, np.inf, -np.inf, np.nan]], np.float32)
    middle = np.ones_like(far)
    image = np.ones((3, 3, 1), np.float32)
    assert not np.asarray(sample_bilinear(image, far, middle)).any()
    assert not np.asarray(sample_nearest(image[..., 0], middle, far)).any()


def _by_indices(image, rows, columns):
    """JAX's version of SciPy's interpolation, without the flat index."""
    places = [
        jnp.clip(x, 0, n - 1)
        for x, n in zip((rows, columns), image.shape, strict=False)
    ]
    sample = functools.partial(
        jax.scipy.ndimage.map_coordinates,
        coordinates=places,
        order=1,
        mode="nearest",
    )
    mixed = jax.vmap(sample, in_axes=-1, out_axes=-1)(image)
    within = inside(rows, columns, image.shape[:2])
    return jnp.where(within[..., None], mixed, 0)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(1, 1, 1), (3, 1, 2), (5, 7, 1), (4, 6, 3)]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_equal_the_plain_form(shape, seed):
    rng = np.random.default_rng(seed)
    image = rng.random(shape, np.float32)
    # Positions avoid the points where the gradient is discontinuous.
    rows, columns = rng.integers(-16, 16 * 8, (2, 5, 3)).astype(np.float32) / 16
    plain_form.check(
        sample_bilinear, _by_indices, image, rows + 1 / 32, columns + 1 / 32, rng=rng
    )
