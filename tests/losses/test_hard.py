import jax
import numpy as np
import optax
import pytest

from segjax import losses

top_k_cross_entropy = jax.jit(losses.top_k_cross_entropy, static_argnames="fraction")
ohem_cross_entropy = jax.jit(
    losses.ohem_cross_entropy, static_argnames=("threshold", "min_fraction")
)


@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(3, 6, 5, 4), scale=2).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 5)).astype(np.int32)
    return logits, labels, rng.random((3, 6, 5)) < 0.7


def _costs(batch):
    """Losses of the valid pixels of each image, in descending order."""
    logits, labels, valid = batch
    cost = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    return [np.sort(c[v])[::-1] for c, v in zip(cost, valid, strict=True)]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
def test_top_k_is_the_mean_of_the_largest(batch, fraction):
    want = [c[: max(1, round(fraction * c.size))].mean() for c in _costs(batch)]
    got = top_k_cross_entropy(*batch, fraction=fraction)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_top_k_of_all_is_cross_entropy(batch):
    got = top_k_cross_entropy(*batch, fraction=1.0)
    np.testing.assert_allclose(got, losses.cross_entropy(*batch), rtol=1e-6)


def test_ties_share_the_last_places():
    # Costs a > b = b = b, two places: gradient 1/2 for a and 1/6 for each b.
    logits = np.float32([[[[0, 3], [0, 1], [0, 1], [0, 1]]]])
    labels, valid = np.zeros((1, 1, 4), np.int32), np.ones((1, 1, 4), bool)

    def total(x):
        return top_k_cross_entropy(x, labels, valid, fraction=0.5)[0]

    grad = jax.jit(jax.grad(total))(logits)[0, 0, :, 1]
    p = 1 / (1 + np.exp(-logits[0, 0, :, 1]))
    np.testing.assert_allclose(grad, p * [1 / 2, 1 / 6, 1 / 6, 1 / 6], rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("min_fraction", [0.05, 0.6])
def test_ohem_is_the_mean_below_the_threshold(batch, threshold, min_fraction):
    want = []
    for cost in _costs(batch):
        count = max(1, round(min_fraction * cost.size))
        picked = (np.exp(-cost) <= threshold) | (np.arange(cost.size) < count)
        want.append(cost[picked].mean())
    got = ohem_cross_entropy(*batch, threshold=threshold, min_fraction=min_fraction)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_messages(batch):
    with pytest.raises(ValueError, match=r"top_k.* needs fraction in \(0, 1\], got 0"):
        losses.top_k_cross_entropy(*batch, fraction=0.0)
    with pytest.raises(ValueError, match=r"ohem.* needs threshold .*got 1\.5"):
        losses.ohem_cross_entropy(*batch, threshold=1.5)
    with pytest.raises(ValueError, match=r"ohem.* needs min_fraction .*got -1"):
        losses.ohem_cross_entropy(*batch, min_fraction=-1.0)
