import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics

from segjax import losses


@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(3, 6, 5, 4), scale=2).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 5)).astype(np.int32)
    return logits, labels, rng.random((3, 6, 5)) < 0.7


def test_soft_dice_by_hand():
    # Two pixels, two classes, p = 1/2 everywhere; truth is class 0 twice.
    # class 0: 1 - (2*1 + 1) / (1 + 2 + 1) = 1/4; class 1: 1 - 1 / (1 + 1) = 1/2.
    logits, labels = jnp.zeros((1, 1, 2, 2)), jnp.zeros((1, 1, 2), jnp.int32)
    valid = jnp.ones((1, 1, 2), bool)
    got = losses.soft_dice(logits, labels, valid)
    np.testing.assert_allclose(got, [3 / 8], rtol=1e-6)
    got = losses.soft_dice(logits, labels, valid, class_weights=(1.0, 3.0))
    np.testing.assert_allclose(got, [7 / 16], rtol=1e-6)  # (1/4 + 3/2) / 4.
    # Of one pixel: 1 - (2*1/2 + 1) / (1/2 + 1 + 1) = 1/5 and 1 - 1 / (3/2) = 1/3.
    got = losses.soft_dice(logits, labels, valid.at[0, 0, 1].set(False))
    np.testing.assert_allclose(got, [4 / 15], rtol=1e-6)


def test_soft_dice_equals_optax(batch):
    # optax has neither a mask nor our smooth: s there is 2s here.
    logits, labels, _ = batch
    target = jax.nn.one_hot(labels, 4)
    want = optax.losses.dice_loss(logits, target, smooth=0.5)
    got = losses.soft_dice(logits, labels, np.ones(labels.shape, bool), smooth=1.0)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_soft_dice_equals_the_formula_on_valid_pixels(batch):
    logits, labels, valid = batch
    probs = np.exp(logits.astype(np.float64))
    probs /= probs.sum(-1, keepdims=True)
    want = []
    for p, y, v in zip(probs, labels, valid, strict=True):
        p, t = p[v], np.eye(4)[y[v]]
        dice = (2 * (p * t).sum(0) + 0.1) / (p.sum(0) + t.sum(0) + 0.1)
        want.append(1 - dice.mean())
    got = losses.soft_dice(*batch, smooth=0.1)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_class_absent_from_labels_and_prediction_contributes_0():
    labels, valid = jnp.zeros((1, 4, 4), jnp.int32), jnp.ones((1, 4, 4), bool)
    logits = jnp.broadcast_to(jnp.asarray([0.0, -1e4]), (1, 4, 4, 2))
    assert losses.soft_dice(logits, labels, valid) == 0


def _images(batch):
    """Yields float64 probabilities and one-hot labels of each image's valid pixels."""
    for logits, labels, valid in zip(*batch, strict=True):
        x = logits.astype(np.float64)[valid]
        probs = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        yield probs, np.eye(logits.shape[-1])[labels[valid]]


def test_log_cosh_dice_equals_the_formula(batch):
    want = np.log(np.cosh(np.float64(losses.soft_dice(*batch, smooth=0.5))))
    got = losses.log_cosh_dice(*batch, smooth=0.5)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # Near 0 it is x**2 / 2, where log(cosh(x)) in float32 would be 0.
    logits = 9.0 * jax.nn.one_hot(batch[1], 4)
    dice = np.float64(losses.soft_dice(logits, *batch[1:]))
    assert (dice < 1e-3).all()
    got = losses.log_cosh_dice(logits, *batch[1:])
    np.testing.assert_allclose(got, dice**2 / 2, rtol=1e-5)


def test_generalized_dice_equals_the_formula(batch):
    logits, labels, valid = batch
    labels = np.where(labels == 3, 0, labels)  # Class 3 is absent ...
    labels[0] = np.where(labels[0] == 2, 1, labels[0])  # ... and here class 2, too.
    want = []
    for p, t in _images((logits, labels, valid)):
        size = t.sum(0)
        weights = 1 / np.maximum(size, 1e-9) ** 2
        weights[size == 0] = weights[size > 0].max()
        want.append(1 - 2 * (weights @ (p * t).sum(0)) / (weights @ (p + t).sum(0)))
    got = losses.generalized_dice(logits, labels, valid)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_generalized_dice_increases_for_a_class_that_is_only_predicted():
    labels, valid = jnp.zeros((1, 2, 2), jnp.int32), jnp.ones((1, 2, 2), bool)
    logits = 30 * jax.nn.one_hot(jnp.asarray([[[0, 0], [0, 1]]]), 2)
    # TP = (3, 0), FP = (0, 1), FN = (1, 0), equal weights: 1 - 6 / (7 + 1).
    got = losses.generalized_dice(logits, labels, valid)
    np.testing.assert_allclose(got, [1 / 4], rtol=1e-6)


def test_jaccard_equals_the_formula(batch):
    weights = np.asarray([0.5, 1.0, 3.0, 0.0])
    want = []
    for p, t in _images(batch):
        overlap = (p * t).sum(0)
        iou = (overlap + 0.1) / ((p + t).sum(0) - overlap + 0.1)
        want.append(weights @ (1 - iou) / weights.sum())
    got = losses.jaccard(*batch, smooth=0.1, class_weights=weights)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_matthews_equals_the_formula(batch):
    smooth, want = 0.5, []
    for p, t in _images(batch):
        tp, tn = (p * t).sum(0) + smooth, ((1 - p) * (1 - t)).sum(0) + smooth
        fp, fn = (p * (1 - t)).sum(0), ((1 - p) * t).sum(0)
        below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        want.append(1 - ((tp * tn - fp * fn) / below).mean())
    got = losses.matthews(*batch, smooth=smooth)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_matthews_of_confident_predictions_equals_scikit_learn(rng):
    labels = rng.integers(0, 2, (3, 9, 9)).astype(np.int32)
    guess = np.where(rng.random(labels.shape) < 0.7, labels, 1 - labels)
    valid = rng.random(labels.shape) < 0.8
    got = losses.matthews(40 * jax.nn.one_hot(guess, 2), labels, valid, smooth=1e-6)
    want = [
        1 - sklearn.metrics.matthews_corrcoef(y[v], p[v])
        for y, p, v in zip(labels, guess, valid, strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_matthews_of_a_single_class_is_smaller_for_the_right_one():
    labels, valid = jnp.zeros((1, 4, 4), jnp.int32), jnp.ones((1, 4, 4), bool)
    scale = jnp.linspace(-20, 20, 9)[:, None, None, None, None]
    logits = scale * jnp.asarray([1.0, 0.0])[None, None, None, None, :]
    logits = jnp.broadcast_to(logits, (9, 1, 4, 4, 2))
    values = jax.vmap(lambda x: losses.matthews(x, labels, valid))(logits)[:, 0]
    assert (jnp.diff(values) < 0).all()
    np.testing.assert_allclose(values[-1], 0, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [losses.soft_dice, losses.log_cosh_dice, losses.jaccard, losses.matthews],
    ids=lambda loss: loss.__name__,
)
def test_smooth_message(batch, loss):
    with pytest.raises(
        ValueError, match=f"{loss.__name__} needs smooth above 0, got 0"
    ):
        loss(*batch, smooth=0.0)
