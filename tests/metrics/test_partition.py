import math

import numpy as np
import pytest
import skimage.measure
import skimage.metrics

from segjax import metrics
from tests.metrics import scenes


def test_equals_scikit_image(rng):
    truth = metrics.connected_components(scenes.blobs(rng, (4, 40, 41), smooth=1.2))
    for i, t in enumerate(truth):
        p = np.roll(t, i, axis=1) // 2
        got = metrics.partition_errors(p, t, np.ones(t.shape, bool))
        # Its first value is H(truth | prediction), our merge.
        merge, split = skimage.metrics.variation_of_information(
            p, t, ignore_labels=(0,)
        )
        where = t > 0  # Its pixels of label 0 still count in the sizes of predictions.
        split, merge = skimage.metrics.variation_of_information(t[where], p[where])
        assert got["voi_split"] == pytest.approx(split)
        assert got["voi_merge"] == pytest.approx(merge)
        assert got["voi"] == pytest.approx(split + merge)
        # scikit-image leaves pairs of a pixel with itself out.
        error, _, _ = skimage.metrics.adapted_rand_error(t[where] + 0, p[where] + 1)
        assert got["adapted_rand_error"] == pytest.approx(error, abs=0.02)


def test_by_hand():
    # One true object of 4 pixels, cut into 3 and 1.
    truth, valid = np.array([[1, 1, 1, 1, 0, 9]]), np.array([[1, 1, 1, 1, 1, 0]])
    predicted = np.array([[5, 5, 5, 7, 7, 5]])
    got = metrics.partition_errors(predicted, truth, valid)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert got["voi_split"] == pytest.approx(entropy)
    assert got["voi_merge"] == pytest.approx(0)
    # sum p_ij**2 = sum p_j**2 = 10, sum p_i**2 = 16.
    assert got["adapted_rand_error"] == pytest.approx(1 - 20 / 26)
    same = metrics.partition_errors(truth, truth, valid)
    assert set(same.values()) == {0}
    none = metrics.partition_errors(predicted, 0 * truth, valid)
    assert np.isnan(list(none.values())).all()


def test_betti_numbers_by_hand(untyped):
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    two = np.zeros((8, 9), np.uint8)
    two[1:4, 1:4] = ring * 255
    two[4, 4] = 1  # Touches the ring by a corner: one component.
    two[6, 7] = 1
    assert metrics.betti_numbers(two) == (2, 1)
    assert metrics.betti_numbers(two[:, :4]) == (1, 1)
    open_ring = ring.copy()
    open_ring[0, 1] = False  # Its hole reaches the edge.
    assert metrics.betti_numbers(open_ring) == (1, 0)
    assert metrics.betti_numbers(np.ones((2, 3), bool)) == (1, 0)
    assert metrics.betti_numbers(np.zeros((2, 3), bool)) == (0, 0)
    with pytest.raises(ValueError, match="mask needs a mask of bool"):
        metrics.betti_numbers(np.ones((2, 3)))


def test_betti_numbers_give_the_euler_characteristic(rng):
    for density in (0.3, 0.5, 0.7):
        mask = rng.random((40, 41)) < density
        components, holes = metrics.betti_numbers(mask)
        assert components > 1 or holes > 1
        euler = skimage.measure.euler_number(mask, connectivity=2)
        assert components - holes == euler


def test_betti_errors_are_of_valid_pixels(rng):
    a, b = (scenes.blobs(rng, (3, 20, 21), smooth=1.0).astype(int) for _ in "ab")
    valid = rng.random(a.shape) < 0.9
    valid[2] = False
    batch = {"index": np.arange(3), "weight": np.ones(3)}
    got = metrics.betti_scores(3 * a, 7 * b, valid, batch).per_image()
    for i in range(2):
        p, t = (metrics.betti_numbers((x[i] > 0) & valid[i]) for x in (a, b))
        assert got["betti_0_error_per_image"][i] == abs(p[0] - t[0])
        assert got["betti_1_error_per_image"][i] == abs(p[1] - t[1])
        assert got["betti_error_per_image"][i] == sum(abs(np.subtract(p, t)))
    assert np.isnan(got["betti_error_per_image"][2])
