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


def test_class_absent_from_both_sides_costs_nothing():
    labels, valid = jnp.zeros((1, 4, 4), jnp.int32), jnp.ones((1, 4, 4), bool)
    logits = jnp.broadcast_to(jnp.asarray([0.0, -1e4]), (1, 4, 4, 2))
    assert losses.soft_dice(logits, labels, valid) == 0


def test_smooth_message(batch):
    with pytest.raises(ValueError, match="smooth above 0, got 0"):
        losses.soft_dice(*batch, smooth=0.0)
