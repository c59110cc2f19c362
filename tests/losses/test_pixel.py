import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import losses

WEIGHTS = (0.5, 1.0, 3.0, 0.0)


@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(3, 6, 5, 4), scale=2).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 5)).astype(np.int32)
    return logits, labels, rng.random((3, 6, 5)) < 0.7


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _mean_by_loop(cost, valid):
    return [c[v].mean() for c, v in zip(np.asarray(cost), valid, strict=True)]


def test_cross_entropy_by_hand():
    # p = (1/4, 3/4): -log(1/4) and -log(3/4); the third pixel is void.
    logits = jnp.log(jnp.asarray([[[[0.25, 0.75]] * 3]]))
    labels = jnp.asarray([[[0, 1, 255]]])
    valid = jnp.asarray([[[True, True, False]]])
    nll = math.log(4), math.log(4 / 3)
    got = losses.cross_entropy(logits, labels, valid)
    np.testing.assert_allclose(got, [sum(nll) / 2], rtol=1e-6)
    got = losses.cross_entropy(logits, labels, valid, class_weights=(4.0, 1.0))
    np.testing.assert_allclose(got, [(4 * nll[0] + nll[1]) / 2], rtol=1e-6)
    got = losses.cross_entropy(logits, labels, valid, label_smoothing=0.5)
    np.testing.assert_allclose(got, [sum(nll) / 2], rtol=1e-6)  # 3/4 a + 1/4 b + ...


def test_cross_entropy_equals_optax(batch):
    logits, labels, valid = batch
    cost = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    got = losses.cross_entropy(*batch)
    np.testing.assert_allclose(got, _mean_by_loop(cost, valid), rtol=1e-5)

    smooth = optax.smooth_labels(jax.nn.one_hot(labels, 4), 0.2)
    cost = optax.softmax_cross_entropy(logits, smooth)
    got = losses.cross_entropy(*batch, label_smoothing=0.2)
    np.testing.assert_allclose(got, _mean_by_loop(cost, valid), rtol=1e-5)


def test_weights_multiply_pixels_but_not_the_denominator(batch):
    logits, labels, valid = batch
    log_p = np.take_along_axis(_log_softmax(logits), labels[..., None], -1)[..., 0]
    want = _mean_by_loop(-np.asarray(WEIGHTS)[labels] * log_p, valid)
    got = losses.cross_entropy(*batch, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # Twice the weights, twice the loss, which a weighted mean would cancel.
    double = losses.cross_entropy(*batch, class_weights=np.asarray(WEIGHTS) * 2)
    np.testing.assert_allclose(double, 2 * np.asarray(got), rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(batch, weights, smoothing):
    import torch

    logits, labels, valid = batch

    def torch_loss(i, reduction):
        return torch.nn.functional.cross_entropy(
            torch.from_numpy(logits[i : i + 1]).permute(0, 3, 1, 2),
            torch.from_numpy(np.where(valid, labels, 255)[i : i + 1]).long(),
            weight=None if weights is None else torch.tensor(weights),
            ignore_index=255,
            label_smoothing=smoothing,
            reduction=reduction,
        ).item()

    got = losses.cross_entropy(*batch, class_weights=weights, label_smoothing=smoothing)
    for i in range(len(logits)):
        count = valid[i].sum()
        np.testing.assert_allclose(got[i], torch_loss(i, "sum") / count, rtol=1e-5)
        # torch divides by the sum of the labels' weights, as documented.
        share = (
            1 if weights is None else np.asarray(weights)[labels[i]][valid[i]].mean()
        )
        np.testing.assert_allclose(got[i], torch_loss(i, "mean") * share, rtol=1e-5)


def test_focal_by_hand():
    # p = 1/4: (3/4)**2 * log 4; with gamma 1 and weight 2: 2 * 3/4 * log 4.
    logits = jnp.log(jnp.asarray([[[[0.25, 0.75]]]]))
    labels, valid = jnp.zeros((1, 1, 1), jnp.int32), jnp.ones((1, 1, 1), bool)
    got = losses.focal(logits, labels, valid)
    np.testing.assert_allclose(got, [9 / 16 * math.log(4)], rtol=1e-6)
    got = losses.focal(logits, labels, valid, gamma=1.0, class_weights=(2.0, 5.0))
    np.testing.assert_allclose(got, [1.5 * math.log(4)], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_of_two_classes_equals_optax(rng, gamma):
    x = rng.normal(size=(2, 4, 4), scale=3).astype(np.float32)
    labels = rng.integers(0, 2, (2, 4, 4)).astype(np.int32)
    valid = rng.random((2, 4, 4)) < 0.7
    logits = np.stack([np.zeros_like(x), x], axis=-1)
    cost = optax.sigmoid_focal_loss(x, labels, alpha=0.25, gamma=gamma)
    got = losses.focal(logits, labels, valid, gamma=gamma, class_weights=(0.75, 0.25))
    np.testing.assert_allclose(got, _mean_by_loop(cost, valid), rtol=1e-4)


def test_focal_without_focus_is_cross_entropy(batch):
    got = losses.focal(*batch, gamma=0.0, class_weights=WEIGHTS)
    want = losses.cross_entropy(*batch, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_pixel_weights_multiply_pixels(batch, rng):
    logits, labels, valid = batch
    weights = rng.random(labels.shape).astype(np.float32) * 3
    cost = -np.take_along_axis(_log_softmax(logits), labels[..., None], -1)[..., 0]
    got = losses.cross_entropy(*batch, pixel_weights=weights)
    np.testing.assert_allclose(got, _mean_by_loop(weights * cost, valid), rtol=1e-5)
    # Ignored where not valid, and converted to float32.
    weights = np.where(valid, weights, np.nan).astype(np.float16)
    got = losses.cross_entropy(*batch, pixel_weights=weights)
    np.testing.assert_allclose(
        got, _mean_by_loop(np.nan_to_num(weights) * cost, valid), rtol=1e-5
    )
    with pytest.raises(Exception, match=r"(?i)shape|pixel_weights"):
        losses.cross_entropy(*batch, pixel_weights=weights[:, 1:])


def test_balanced_cross_entropy_is_the_mean_over_present_classes(batch):
    logits, labels, valid = batch
    labels = np.where((labels == 3) & (np.arange(3) == 1)[:, None, None], 0, labels)
    cost = -np.take_along_axis(_log_softmax(logits), labels[..., None], -1)[..., 0]
    want = []
    for c, y, v in zip(cost, labels, valid, strict=True):
        want.append(np.mean([c[v & (y == k)].mean() for k in np.unique(y[v])]))
    got = losses.balanced_cross_entropy(logits, labels, valid)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_balanced_cross_entropy_equals_the_paper(rng):
    # Equation 2 of Xie and Tu: -beta * sum_edge log p - (1 - beta) * sum_not log p.
    x = rng.normal(size=(2, 7, 7)).astype(np.float32)
    labels = (rng.random(x.shape) < 0.2).astype(np.int32)
    logits = np.stack([np.zeros_like(x), x], axis=-1)
    got = losses.balanced_cross_entropy(logits, labels, np.ones(x.shape, bool))
    for value, z, edge in zip(got, np.float64(x), labels == 1, strict=True):
        p = 1 / (1 + np.exp(-z))
        beta = np.mean(~edge)
        paper = -beta * np.log(p[edge]).sum() - (1 - beta) * np.log(1 - p[~edge]).sum()
        docstring = 2 * beta * (1 - beta)
        np.testing.assert_allclose(value * docstring, paper / z.size, rtol=1e-5)


def test_messages(batch):
    with pytest.raises(ValueError, match=r"label_smoothing needs .* got 1\.0"):
        losses.cross_entropy(*batch, label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"gamma of at least 0, got -1"):
        losses.focal(*batch, gamma=-1.0)
