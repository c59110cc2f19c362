import numpy as np
import pytest

from segjax import losses

DISTANCES = np.array([[0, 1, 1], [1, 0, 0.25], [1, 0.25, 0]])
APART = 1 - np.eye(3)


@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(2, 5, 6, 3), scale=2).astype(np.float32)
    labels = rng.integers(0, 3, (2, 5, 6)).astype(np.int32)
    return logits, labels, rng.random((2, 5, 6)) < 0.7


def test_equals_sums_over_pixels(batch):
    got = losses.wasserstein_dice(*batch, distances=DISTANCES, smooth=0.5)
    for value, x, y, v in zip(got, *batch, strict=True):
        hits = errors = 0.0
        for logits, label in zip(np.float64(x[v]), y[v], strict=True):
            p = np.exp(logits) / np.exp(logits).sum()
            d = sum(DISTANCES[label, c] * p[c] for c in range(3))
            errors += d
            hits += (1 - d) * (label > 0)
        np.testing.assert_allclose(value, errors / (2 * hits + errors + 0.5), rtol=1e-5)


def test_similar_classes_cost_less(rng):
    labels, valid = np.ones((1, 4, 4), np.int32), np.ones((1, 4, 4), bool)
    logits = np.broadcast_to(np.float32([0, 0, 9]), (1, 4, 4, 3))
    near = losses.wasserstein_dice(logits, labels, valid, distances=DISTANCES)
    far = losses.wasserstein_dice(logits, labels, valid, distances=APART)
    assert near < far / 2


@pytest.mark.parametrize(
    "wrong", [DISTANCES * 2, DISTANCES + np.eye(3), np.triu(DISTANCES), APART[:2]]
)
def test_messages(batch, wrong):
    with pytest.raises(ValueError, match="distances needs a symmetric matrix"):
        losses.wasserstein_dice(*batch, distances=wrong)
    with pytest.raises(ValueError, match="distances needs 3 rows"):
        losses.wasserstein_dice(*batch, distances=APART[:2, :2])
