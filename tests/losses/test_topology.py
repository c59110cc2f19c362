import jax
import numpy as np
import pytest
from scipy import ndimage

from segjax import losses

soft_cldice = jax.jit(losses.soft_cldice, static_argnames=("iterations", "smooth"))

CROSS = ndimage.generate_binary_structure(2, 1)


def _skeleton(x, iterations):
    """Algorithm 1 of the paper, by SciPy's gray morphology."""

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


@pytest.mark.parametrize("iterations", [1, 3])
def test_equals_algorithm_2_of_the_paper(rng, iterations):
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, 16, 14, 3)), (0, 1, 1, 0))
    labels = np.argmax(smooth, axis=-1).astype(np.int32)
    logits = (4 * smooth + rng.normal(size=smooth.shape)).astype(np.float32)
    valid = rng.random(labels.shape) < 0.9
    weights, smooth = np.asarray([0.0, 1.0, 2.0]), 0.5
    want = []
    for x, y, v in zip(np.float64(logits), labels, valid, strict=True):
        probs = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        terms = []
        for k in range(3):
            p, t = probs[..., k] * v, ((y == k) & v).astype(float)
            lines, true = _skeleton(p, iterations), _skeleton(t, iterations)
            precision = ((lines * t).sum() + smooth) / (lines.sum() + smooth)
            recall = ((true * p).sum() + smooth) / (true.sum() + smooth)
            terms.append(1 - 2 * precision * recall / (precision + recall))
        want.append(weights @ terms / weights.sum())
    got = soft_cldice(
        logits,
        labels,
        valid,
        iterations=iterations,
        smooth=smooth,
        class_weights=weights,
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_gap_costs_more_than_a_thinner_line():
    labels, valid = np.zeros((1, 15, 30), np.int32), np.ones((1, 15, 30), bool)
    labels[0, 6:9, 2:28] = 1
    gap, thin = labels.copy(), labels.copy()
    gap[0, :, 12:18] = 0  # 18 pixels missing, in two pieces.
    thin[0, 6] = 0  # 26 pixels missing, in one piece.
    options = {"class_weights": np.asarray([0.0, 1.0])}
    gap, thin = (
        soft_cldice(np.float32(30 * np.eye(2)[x]), labels, valid, **options)
        for x in (gap, thin)
    )
    assert gap > 2 * thin


def test_absent_class_contributes_0():
    labels, valid = np.zeros((1, 8, 8), np.int32), np.ones((1, 8, 8), bool)
    logits = np.broadcast_to(np.float32([0, -1e4]), (1, 8, 8, 2))
    assert soft_cldice(logits, labels, valid) == 0


def test_messages(untyped):
    batch = (
        np.zeros((1, 4, 4, 2), np.float32),
        np.zeros((1, 4, 4), np.int32),
        np.ones((1, 4, 4), bool),
    )
    with pytest.raises(ValueError, match="iterations of at least 1, got 0"):
        losses.soft_cldice(*batch, iterations=0)
    with pytest.raises(ValueError, match=r"whole number for iterations, got 2\.5"):
        losses.soft_cldice(*batch, iterations=2.5)
    with pytest.raises(ValueError, match="soft_cldice needs smooth above 0, got 0"):
        losses.soft_cldice(*batch, smooth=0.0)
