import itertools

import jax
import numpy as np
import pytest

from segjax import losses

lovasz_softmax = jax.jit(losses.lovasz_softmax)
lovasz_hinge = jax.jit(losses.lovasz_hinge)

PIXELS = 10


def _jaccard_loss(wrong, truth):
    """One minus the IoU of the mask that is wrong on a set of pixels."""
    guess = truth ^ wrong
    union = (guess | truth).sum()
    return 1 - (guess & truth).sum() / union if union else 0.0


def _by_all_subsets(errors, truth):
    """Lovász extension by its integral form over all level sets, by table.

    A table has the Jaccard loss of each of the 2**10 sets of wrong pixels; the
    extension is the integral of table[{error > t}] over t. (No sort, no gradient.)
    """
    table = {
        subset: _jaccard_loss(np.asarray(subset, bool), truth)
        for subset in itertools.product((0, 1), repeat=truth.size)
    }
    levels = np.unique(np.concatenate([[0.0], errors]))
    total = 0.0
    for low, high in itertools.pairwise(levels):
        total += (high - low) * table[tuple((errors > low).astype(int))]
    return total, table


def _greatest_over_bases(errors, truth, table):
    """The same by duality: the most that a point of the base polytope can score.

    The Jaccard loss is submodular, so for each order of the pixels its increments
    are a vertex; sampled orders never beat the extension.
    """
    rng = np.random.default_rng(0)
    best = -np.inf
    for _ in range(300):
        subset, score, before = np.zeros(truth.size, int), 0.0, 0.0
        for i in rng.permutation(truth.size):
            subset[i] = 1
            after = table[tuple(subset)]
            score += errors[i] * (after - before)
            before = after
        best = max(best, score)
    return best


@pytest.mark.parametrize("foreground", [0, 1, 4, 10])
def test_lovasz_hinge_equals_brute_force(rng, foreground):
    truth = np.arange(PIXELS) < foreground
    x = rng.normal(size=PIXELS, scale=1.5)
    errors = np.maximum(1 - np.where(truth, 1, -1) * x, 0)
    want, table = _by_all_subsets(errors, truth)
    assert _greatest_over_bases(errors, truth, table) <= want + 1e-9
    logits = np.stack([np.zeros(PIXELS), x], axis=-1)[None, None].astype(np.float32)
    labels, valid = np.int32(truth)[None, None], np.ones((1, 1, PIXELS), bool)
    got = lovasz_hinge(logits, labels, valid)
    np.testing.assert_allclose(got, [want], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_lovasz_softmax_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(PIXELS, 4), scale=2)
    labels = rng.integers(0, 3, PIXELS)  # Class 3 is absent and left out of the mean.
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = []
    for k in np.unique(labels):
        truth = labels == k
        errors = np.where(truth, 1 - probs[:, k], probs[:, k])
        want.append(_by_all_subsets(errors, truth)[0])
    shape = (1, 2, 5)
    got = lovasz_softmax(
        logits.reshape(*shape, 4).astype(np.float32),
        labels.reshape(shape).astype(np.int32),
        np.ones(shape, bool),
    )
    np.testing.assert_allclose(got, [np.mean(want)], rtol=1e-5)


def test_equals_the_loss_without_the_invalid_pixels(rng):
    logits = rng.normal(size=(1, 1, 12, 3), scale=2).astype(np.float32)
    labels = rng.integers(0, 3, (1, 1, 12)).astype(np.int32)
    valid = np.arange(12)[None, None] % 3 > 0
    keep = valid[0, 0]
    got = lovasz_softmax(logits, labels, valid)
    want = lovasz_softmax(logits[:, :, keep], labels[:, :, keep], valid[..., keep])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_confident_predictions_score_one_minus_iou(rng):
    labels = rng.integers(0, 3, (2, 6, 6)).astype(np.int32)
    guess = np.where(rng.random(labels.shape) < 0.6, labels, 0)
    valid = rng.random(labels.shape) < 0.8
    got = lovasz_softmax(np.float32(40 * np.eye(3)[guess]), labels, valid)
    want = []
    for y, p, v in zip(labels, guess, valid, strict=True):
        y, p = y[v], p[v]
        ious = [
            ((y == k) & (p == k)).sum() / ((y == k) | (p == k)).sum()
            for k in np.unique(y)
        ]
        want.append(1 - np.mean(ious))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_hinge_needs_two_classes(rng):
    logits = np.zeros((1, 2, 2, 3), np.float32)
    with pytest.raises(ValueError, match="needs 2 classes, got logits of 3"):
        losses.lovasz_hinge(
            logits, np.zeros((1, 2, 2), np.int32), np.ones((1, 2, 2), bool)
        )
