import jax
import numpy as np
import optax
import pytest

from segjax import losses

WEIGHTS = np.asarray([0.5, 1.0, 3.0, 0.0])


@pytest.fixture
def batch(rng):
    """Overlapping targets: a pixel may have several classes, or none."""
    logits = rng.normal(size=(3, 6, 5, 4), scale=2).astype(np.float32)
    targets = rng.random((3, 6, 5, 4)) < 0.4
    return logits, targets, rng.random((3, 6, 5)) < 0.7


def _mean(cost, valid, weights):
    rows = [c[v].mean(0) for c, v in zip(np.float64(cost), valid, strict=True)]
    return np.stack(rows) @ weights / weights.sum()


def test_cross_entropy_equals_optax(batch):
    logits, targets, valid = batch
    cost = optax.sigmoid_binary_cross_entropy(logits, targets.astype(np.float32))
    got = losses.sigmoid_cross_entropy(*batch, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, _mean(cost, valid, WEIGHTS), rtol=1e-5)
    soft = 0.8 * targets.astype(np.float32) + 0.1
    cost = optax.sigmoid_binary_cross_entropy(logits, soft)
    got = losses.sigmoid_cross_entropy(logits, soft, valid)
    np.testing.assert_allclose(got, _mean(cost, valid, np.ones(4)), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_equals_optax(batch, gamma):
    logits, targets, valid = batch
    cost = optax.sigmoid_focal_loss(
        logits, targets.astype(np.float32), alpha=0.3, gamma=gamma
    )
    got = losses.sigmoid_focal(*batch, alpha=0.3, gamma=gamma, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, _mean(cost, valid, WEIGHTS), rtol=1e-4)


def test_dice_equals_the_formula_on_valid_pixels(batch):
    # optax's binary_dice_loss takes the softmax of its one channel, which is 1.
    logits, targets, valid = batch
    want = []
    for x, t, v in zip(np.float64(logits), targets, valid, strict=True):
        p, t = 1 / (1 + np.exp(-x[v])), t[v]
        dice = (2 * (p * t).sum(0) + 1) / (p.sum(0) + t.sum(0) + 1)
        want.append(1 - WEIGHTS @ dice / WEIGHTS.sum())
    got = losses.sigmoid_dice(*batch, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_two_classes_of_a_softmax_are_one_of_a_sigmoid(rng):
    x = rng.normal(size=(2, 4, 4, 1)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 4, 4)).astype(np.int32)
    valid = rng.random(labels.shape) < 0.7
    got = losses.sigmoid_cross_entropy(x, labels[..., None] == 1, valid)
    pair = np.concatenate([np.zeros_like(x), x], axis=-1)
    np.testing.assert_allclose(
        got, losses.cross_entropy(pair, labels, valid), rtol=1e-5
    )


def test_confident_predictions_are_accurate():
    logits = np.float32([[[[20.0, -20.0]]]])
    targets, valid = np.asarray([[[[True, False]]]]), np.ones((1, 1, 1), bool)
    got = losses.sigmoid_cross_entropy(logits, targets, valid)
    np.testing.assert_allclose(got, [np.exp(-20)], rtol=1e-4)
    grad = jax.grad(lambda x: losses.sigmoid_cross_entropy(x, targets, valid)[0])(
        logits
    )
    np.testing.assert_allclose(
        grad[0, 0, 0] * 2, [-np.exp(-20), np.exp(-20)], rtol=1e-4
    )


def test_messages(batch):
    with pytest.raises(ValueError, match=r"alpha in \[0, 1\], got 2\.0 and 3\.0"):
        losses.sigmoid_focal(*batch, alpha=3.0)
    with pytest.raises(ValueError, match="sigmoid_dice needs smooth above 0"):
        losses.sigmoid_dice(*batch, smooth=0.0)


SIGMOID_FORMS = {
    losses.sigmoid_jaccard: losses.jaccard,
    losses.sigmoid_tversky: losses.tversky,
    losses.sigmoid_matthews: losses.matthews,
    losses.sigmoid_dice: losses.soft_dice,
}


@pytest.mark.parametrize("sigmoid", SIGMOID_FORMS)
def test_each_class_is_the_foreground_of_a_softmax_of_two(batch, sigmoid):
    """The softmax of (0, x) is the sigmoid of x."""
    logits, targets, valid = batch
    of_class = []
    for x, t in zip(
        np.moveaxis(logits, -1, 0), np.moveaxis(targets, -1, 0), strict=True
    ):
        pair, labels = np.stack([0 * x, x], -1), t.astype(np.int32)
        softmax = SIGMOID_FORMS[sigmoid]
        of_class.append(softmax(pair, labels, valid, class_weights=(0.0, 1.0)))
    got = sigmoid(*batch, class_weights=WEIGHTS)
    want = np.stack(of_class, -1) @ WEIGHTS / WEIGHTS.sum()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_lovasz_hinge_of_each_class_has_its_logit_as_margin(batch):
    logits, targets, valid = batch
    of_class = [
        losses.lovasz_hinge(np.stack([0 * x, x], -1), t.astype(np.int32), valid)
        for x, t in zip(
            np.moveaxis(logits, -1, 0), np.moveaxis(targets, -1, 0), strict=True
        )
    ]
    got = losses.sigmoid_lovasz_hinge(*batch, class_weights=WEIGHTS)
    want = np.stack(of_class, -1) @ WEIGHTS / WEIGHTS.sum()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_soft_targets_of_region_losses_equal_the_formula(batch, rng):
    logits, _, valid = batch
    targets = rng.random(logits.shape).astype(np.float32)
    got = losses.sigmoid_tversky(
        logits, targets, valid, alpha=0.2, beta=0.5, smooth=0.1
    )
    for value, x, t, v in zip(got, np.float64(logits), targets, valid, strict=True):
        p, t = 1 / (1 + np.exp(-x[v])), t[v]
        hits, extra, missed = (y.sum(0) for y in (p * t, p * (1 - t), (1 - p) * t))
        index = (hits + 0.1) / (hits + 0.2 * extra + 0.5 * missed + 0.1)
        np.testing.assert_allclose(value, np.mean(1 - index), rtol=1e-5)
