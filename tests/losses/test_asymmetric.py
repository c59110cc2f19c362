import numpy as np
import pytest

from segjax import losses


@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(3, 6, 5, 4), scale=2).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 5)).astype(np.int32)
    return logits, labels, rng.random((3, 6, 5)) < 0.7


def _images(batch):
    """Yields float64 probabilities and one-hot labels of each image's valid pixels."""
    for logits, labels, valid in zip(*batch, strict=True):
        x = logits.astype(np.float64)[valid]
        probs = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        yield probs, np.eye(logits.shape[-1])[labels[valid]]


def _index(p, t, alpha, beta, smooth):
    tp, fp, fn = (p * t).sum(0), (p * (1 - t)).sum(0), ((1 - p) * t).sum(0)
    return (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)


def test_tversky_equals_the_formula(batch):
    want = [1 - _index(p, t, 0.2, 0.9, 0.5).mean() for p, t in _images(batch)]
    got = losses.tversky(*batch, alpha=0.2, beta=0.9, smooth=0.5)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_tversky_equals_dice_and_jaccard_for_their_weights(batch):
    got = losses.tversky(*batch, alpha=0.5, beta=0.5, smooth=0.5)
    np.testing.assert_allclose(got, losses.soft_dice(*batch, smooth=1.0), rtol=1e-5)
    got = losses.tversky(*batch, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(got, losses.jaccard(*batch), rtol=1e-5)


def test_false_negatives_cost_more_than_false_positives():
    # One pixel of four is wrong. Missed: TP 1, FN 1 and TP 2, FP 1 (the rest).
    logits = np.float32(30 * np.eye(2)[[[[1, 0, 0, 0]]]])
    labels, valid = np.int32([[[1, 1, 0, 0]]]), np.ones((1, 1, 4), bool)
    foreground = {"class_weights": (0.0, 1.0), "smooth": 1e-6}
    missed = losses.tversky(logits, labels, valid, **foreground)
    np.testing.assert_allclose(missed, [1 - 1 / 1.7], rtol=1e-5)
    extra = losses.tversky(logits[:, :, ::-1], labels[:, :, ::-1], valid, **foreground)
    np.testing.assert_allclose(extra, missed, rtol=1e-6)
    other = np.int32([[[0, 0, 0, 0]]])
    other[0, 0, 0] = 1
    both = np.float32(30 * np.eye(2)[[[[1, 1, 0, 0]]]])
    extra = losses.tversky(both, other, valid, **foreground)
    np.testing.assert_allclose(extra, [1 - 1 / 1.3], rtol=1e-5)


def test_focal_tversky_equals_the_formula(batch):
    weights = np.asarray([0.0, 1.0, 2.0, 3.0])
    want = []
    for p, t in _images(batch):
        loss = (1 - _index(p, t, 0.3, 0.7, 1.0)) ** (1 / 2.5)
        want.append(weights @ loss / weights.sum())
    got = losses.focal_tversky(*batch, gamma=2.5, class_weights=weights)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got = losses.focal_tversky(*batch, gamma=1.0)
    np.testing.assert_allclose(got, losses.tversky(*batch), rtol=1e-6)


def test_asymmetric_unified_focal_equals_the_formula(batch):
    rare, weight, delta, gamma = np.asarray([0, 1, 0, 1], bool), 0.3, 0.7, 0.4
    want = []
    for p, t in _images(batch):
        # Equation 17: focal without focus for rare r, with it for the rest.
        cost = -t * np.log(p)
        focal = delta * cost[:, rare].sum(-1)
        focal += (1 - delta) * ((1 - p) ** gamma * cost)[:, ~rare].sum(-1)
        # Equation 18: focal Tversky with enhancement for rare r only.
        loss = 1 - _index(p, t, 1 - delta, delta, 1.0)
        loss[rare] **= 1 - gamma
        want.append(weight * focal.mean() + (1 - weight) * loss.mean())
    options = {"weight": weight, "delta": delta, "gamma": gamma}
    got = losses.asymmetric_unified_focal(*batch, rare=rare, **options)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got = losses.asymmetric_unified_focal(*batch)
    want = losses.asymmetric_unified_focal(*batch, rare=(False, True, True, True))
    np.testing.assert_array_equal(got, want)


def test_symmetric_unified_focal_equals_the_formula(batch):
    rare, weight, delta, gamma = np.asarray([0, 1, 0, 1], bool), 0.3, 0.7, 0.4
    want = []
    for p, t in _images(batch):
        cost = np.where(rare, delta, 1 - delta) * (1 - p) ** gamma * -t * np.log(p)
        loss = (1 - _index(p, t, 1 - delta, delta, 1.0)) ** (1 - gamma)
        pixels = cost.sum(-1).mean()
        want.append(weight * pixels + (1 - weight) * loss.mean())
    options = {"weight": weight, "delta": delta, "gamma": gamma}
    got = losses.symmetric_unified_focal(*batch, rare=rare, **options)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_messages(batch):
    with pytest.raises(ValueError, match=r"alpha=-1\.0 and beta=0\.7"):
        losses.tversky(*batch, alpha=-1.0)
    with pytest.raises(ValueError, match="focal_tversky needs gamma above 0, got 0"):
        losses.focal_tversky(*batch, gamma=0.0)
    with pytest.raises(ValueError, match=r"gamma in \[0, 1\), got 0\.5, 0\.6 and 1"):
        losses.asymmetric_unified_focal(*batch, gamma=1.0)
    with pytest.raises(ValueError, match=r"rare needs 4 numbers.*got shape \(2,\)"):
        losses.asymmetric_unified_focal(*batch, rare=(True, False))
