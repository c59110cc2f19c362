import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segjax import ops


def _by_brute_force(instances):
    """The two smallest of one distance transform per instance; inf if missing."""
    maps = [
        ndimage.distance_transform_edt(instances != name)
        for name in np.unique(instances[instances != 0])
    ]
    far = np.full(instances.shape, np.inf)
    return np.sort(np.stack([*maps, far, far]), axis=0)[:2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (20, 31)], ids=str)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 999))
def test_equals_one_transform_per_instance(shape, seed):
    rng = np.random.default_rng(seed)
    maps = rng.integers(1, 30, (20, *shape))
    # Some scattered pixels, some blobs, some of one instance, some empty.
    sparse = rng.random((20, *shape)) > rng.choice([0.5, 0.9, 0.99], (20, 1, 1))
    instances = np.where(sparse, 0, maps).astype(np.int32)
    instances[:5] = ndimage.maximum_filter(instances[:5], (1, 3, 4))
    instances[5] = np.where(instances[5], 7, 0)
    instances[6] = 0
    instances[7] = -3
    got = jax.jit(ops.two_nearest)(instances)
    want = np.stack([_by_brute_force(one) for one in instances], axis=1)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_by_hand():
    first, second = ops.two_nearest(jnp.asarray([[0, 4, 0, 0, 9], [0, 4, 0, 0, 0]]))
    np.testing.assert_allclose(first[0], [1, 0, 1, 1, 0])
    np.testing.assert_allclose(second[0], [4, 3, 2, 2, 3])
    np.testing.assert_allclose(second[1], np.sqrt([17, 10, 5, 4, 9]), rtol=1e-6)


def test_one_instance_has_no_second():
    first, second = ops.two_nearest(jnp.asarray([[0, 4, 4, 0]]))
    np.testing.assert_array_equal(first, [[1, 0, 0, 1]])
    assert np.isposinf(second).all()


def test_does_not_stop_too_early():
    # A single image, because others in a batch prolong the search.
    instances = np.zeros((40, 60), np.int32)
    instances[-1], instances[:, 0], instances[0, 30] = 1, 2, 3
    want = _by_brute_force(instances)
    np.testing.assert_allclose(ops.two_nearest(instances), want, atol=1e-5)


def test_exact_within_max_distance(rng):
    instances = np.where(
        rng.random((3, 30, 40)) > 0.99, rng.integers(1, 9, (30, 40)), 0
    )
    got = np.stack(ops.two_nearest(instances.astype(np.int32), max_distance=5.5))
    want = np.stack([_by_brute_force(one) for one in instances], axis=1)
    assert (got >= want - 1e-5).all()
    near = want <= 5.5
    assert 0.1 < near.mean() < 0.9
    np.testing.assert_allclose(got[near], want[near], atol=1e-5)
