import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import losses


@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(3, 6, 5, 4), scale=2).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 5)).astype(np.int32)
    return logits, labels, rng.random((3, 6, 5)) < 0.7


@pytest.fixture
def raters(rng):
    """Mean of five raters."""
    votes = rng.integers(0, 4, (5, 3, 6, 5))
    return np.eye(4, dtype=np.float32)[votes].mean(0)


def test_poly_by_hand():
    # p = 1/4 and 1/2: -log(p) + 2 * (1 - p).
    logits = jnp.log(jnp.asarray([[[[0.25, 0.75], [0.5, 0.5]]]]))
    labels, valid = jnp.zeros((1, 1, 2), jnp.int32), jnp.ones((1, 1, 2), bool)
    got = losses.poly_cross_entropy(logits, labels, valid, epsilon=2.0)
    want = (math.log(4) + 1.5 + math.log(2) + 1) / 2
    np.testing.assert_allclose(got, [want], rtol=1e-6)


def test_poly_without_epsilon_is_cross_entropy(batch):
    got = losses.poly_cross_entropy(*batch, epsilon=0.0)
    np.testing.assert_allclose(got, losses.cross_entropy(*batch), rtol=1e-6)


def test_poly_equals_optax(batch):
    logits, labels, valid = batch
    cost = optax.losses.poly_loss_cross_entropy(
        logits, jax.nn.one_hot(labels, 4), epsilon=1.5
    )
    want = [c[v].mean() for c, v in zip(np.asarray(cost), valid, strict=True)]
    got = losses.poly_cross_entropy(*batch, epsilon=1.5)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_symmetric_is_both_cross_entropies_with_a_cut_logarithm(batch):
    logits, labels, valid = batch
    probs = np.asarray(jax.nn.softmax(np.float64(logits)))
    target = np.eye(4)[labels]
    forward = -(target * np.log(probs)).sum(-1)
    with np.errstate(divide="ignore"):
        reverse = -(probs * np.maximum(np.log(target), -3.0)).sum(-1)
    cost = 0.3 * forward + 2.0 * reverse
    want = [c[v].mean() for c, v in zip(cost, valid, strict=True)]
    got = losses.symmetric_cross_entropy(*batch, alpha=0.3, beta=2.0, log_zero=3.0)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_one_hot_soft_labels_are_labels(batch):
    logits, labels, valid = batch
    hot = np.eye(4, dtype=np.float32)[labels]
    for soft, hard in (
        (losses.soft_label_cross_entropy, losses.cross_entropy),
        (losses.soft_label_dice, losses.soft_dice),
    ):
        want = hard(*batch)
        np.testing.assert_allclose(soft(logits, hot, valid), want, rtol=1e-5)
        np.testing.assert_allclose(soft(logits, hot > 0, valid), want, rtol=1e-5)


def test_bootstraps_are_cross_entropies_of_mixed_labels(batch):
    logits, labels, valid = batch
    probs = np.asarray(jax.nn.softmax(np.float64(logits)))
    target = np.eye(4)[labels]
    for loss, other in (
        (losses.soft_bootstrap_cross_entropy, probs),
        (losses.hard_bootstrap_cross_entropy, np.eye(4)[probs.argmax(-1)]),
    ):
        cost = -((0.7 * target + 0.3 * other) * np.log(probs)).sum(-1)
        want = [c[v].mean() for c, v in zip(cost, valid, strict=True)]
        np.testing.assert_allclose(loss(*batch, beta=0.7), want, rtol=1e-5)
        want = losses.cross_entropy(*batch)
        np.testing.assert_allclose(loss(*batch, beta=1.0), want, rtol=1e-6)


def test_soft_label_cross_entropy_equals_optax(batch, raters):
    logits, _, valid = batch
    cost = np.asarray(optax.softmax_cross_entropy(logits, raters))
    want = [c[v].mean() for c, v in zip(cost, valid, strict=True)]
    got = losses.soft_label_cross_entropy(logits, raters, valid)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_probabilities_equal_to_soft_labels_are_the_minimum(raters, rng):
    valid = np.ones(raters.shape[:-1], bool)
    for loss in (losses.soft_label_cross_entropy, losses.soft_label_dice):
        perfect = np.log(np.maximum(raters, 1e-12))
        best = loss(perfect, raters, valid)
        for _ in range(20):
            noise = rng.normal(size=raters.shape).astype(np.float32)
            assert (loss(perfect + noise, raters, valid) > best).all()
        if loss is losses.soft_label_dice:
            np.testing.assert_allclose(best, 0, atol=1e-6)
            # Dice of the products is not least there.
            assert (losses.sigmoid_dice(perfect, raters, valid) > 0.1).all()


def test_soft_labels_that_do_not_sum_to_one_are_refused(batch, raters):
    logits, _, valid = batch
    raters[0, 0, 0] = 0
    valid[0, 0, 0] = True
    with pytest.raises(ValueError, match=r"sum to 1 .* got a sum of 0 at 1 pixels"):
        losses.soft_label_cross_entropy(logits, raters, valid)
    valid[0, 0, 0] = False
    assert np.isfinite(losses.soft_label_cross_entropy(logits, raters, valid)).all()
