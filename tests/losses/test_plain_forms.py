"""Fast implementations of losses equal plain ones, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import losses
from segjax.losses import asymmetric, common
from tests import plain_form

SHAPES = st.sampled_from([(1, 1, 1, 1), (1, 1, 1, 3), (2, 5, 3, 1), (2, 3, 7, 4)])
SEEDS = st.integers(0, 999)


def draw(shape, seed):
    """Logits, float one-hot labels, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=shape).astype(np.float32)
    labels = rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
    target = np.eye(shape[-1], dtype=np.float32)[labels]
    return rng, logits, target, labels


def _sums_over_pixels(probs, target):
    others = jnp.sum(target, axis=-1, keepdims=True) - target
    rest = jnp.sum(probs, axis=-1, keepdims=True) - probs
    products = probs * target, probs * others, rest * target
    return tuple(jnp.sum(x, axis=(1, 2)) for x in products)


@settings(max_examples=16, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_soft_counts_equal_plain_sums(shape, seed):
    rng, logits, target, _ = draw(shape, seed)
    probs = np.asarray(jax.nn.softmax(logits))
    target *= rng.random((*shape[:-1], 1)) < 0.8
    plain_form.check(common.soft_counts, _sums_over_pixels, probs, target, rng=rng)


def test_soft_counts_of_large_maps_equal_sums_in_float64():
    rng = np.random.default_rng(0)
    probs = rng.random((1, 2**10, 2**12 + 1, 4), np.float32)  # Just above the limit.
    labels = rng.integers(0, 4, probs.shape[:3])
    target = np.eye(4, dtype=np.float32)[labels]
    hits, extra, missed = map(
        np.asarray, common.soft_counts(jnp.asarray(probs), jnp.asarray(target))
    )
    sums = np.stack([probs[labels == i].sum(0, np.float64) for i in range(4)])
    right = np.diag(sums)
    np.testing.assert_allclose(hits[0], right, rtol=1e-6)
    np.testing.assert_allclose(extra[0], sums.sum(0) - right, rtol=1e-6)
    np.testing.assert_allclose(missed[0], sums.sum(1) - right, rtol=1e-6)


def _shared(logits, labels):
    target = jax.nn.one_hot(labels.astype(int), logits.shape[-1])
    return common.softmax_and_log_p(logits, target)


def _apart(logits, labels):
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, labels.astype(int)[..., None], axis=-1)
    return jax.nn.softmax(logits), picked[..., 0]


@settings(max_examples=16, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_softmax_and_log_p_equal_jax(shape, seed):
    rng, logits, _, labels = draw(shape, seed)
    labels = labels.astype(np.float32)  # The gradient of labels is 0 in both forms.
    plain_form.check(_shared, _apart, logits, labels, rng=rng)


def _cross_entropy_by_gather(logits, labels):
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, labels.astype(int)[..., None], axis=-1)
    return -jnp.mean(picked[..., 0], axis=(1, 2))


def _cross_entropy(logits, labels):
    valid = jnp.ones(labels.shape, bool)
    return losses.cross_entropy(logits, labels.astype(int), valid)


@settings(max_examples=16, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_cross_entropy_equals_a_gather(shape, seed):
    rng, logits, _, labels = draw(shape, seed)
    labels = labels.astype(np.float32)  # The gradient of labels is 0 in both forms.
    plain_form.check(_cross_entropy, _cross_entropy_by_gather, logits, labels, rng=rng)


def _cost(log_p, rare):
    focal = 0.4 * asymmetric._focal_cost(log_p, 0.5)
    return jnp.where(rare > 0, -0.6 * log_p, focal)


def _cost_by_jax(log_p, rare):
    focal = -0.4 * (1 - jnp.exp(log_p)) ** 0.5 * log_p
    return jnp.where(rare > 0, -0.6 * log_p, focal)


@settings(max_examples=16, deadline=None)
@given(shape=st.sampled_from([(1, 1, 1), (2, 5, 3)]), seed=SEEDS)
def test_asymmetric_cost_gradient_equals_autodiff(shape, seed):
    rng = np.random.default_rng(seed)
    log_p = np.log(rng.uniform(0.01, 0.99, shape)).astype(np.float32)
    rare = rng.integers(0, 2, shape).astype(np.float32)
    plain_form.check(_cost, _cost_by_jax, log_p, rare, rng=rng)


def _top_half(logits, labels):
    valid = jnp.ones(labels.shape, bool)
    return losses.top_k_cross_entropy(logits, labels.astype(int), valid, fraction=0.5)


def _top_half_by_sorting(logits, labels):
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, labels.astype(int)[..., None], axis=-1)
    cost = jnp.sort(-picked.reshape(len(logits), -1), axis=-1, descending=True)
    return jnp.mean(cost[:, : max(1, round(0.5 * cost.shape[1]))], axis=-1)


@settings(max_examples=16, deadline=None)
@given(shape=st.sampled_from([(1, 1, 1, 2), (2, 3, 7, 4)]), seed=SEEDS)
def test_hardest_pixels_equal_a_sort(shape, seed):
    rng, logits, _, labels = draw(shape, seed)
    labels = labels.astype(np.float32)
    plain_form.check(_top_half, _top_half_by_sorting, logits, labels, rng=rng)


def _lovasz(logits, labels):
    valid = jnp.ones(labels.shape, bool)
    return losses.lovasz_softmax(logits, labels.astype(int), valid)


def _lovasz_by_the_authors(logits, labels):
    """Algorithm 1 of arXiv:1705.08790, with JAX's sort."""

    def one_class(error, truth):
        order = jnp.argsort(-error)
        union = jnp.sum(truth) + jnp.cumsum(1 - truth[order])
        jaccard = 1 - (jnp.sum(truth) - jnp.cumsum(truth[order])) / union
        steps = jax.lax.stop_gradient(jnp.diff(jaccard, prepend=0))
        return jnp.where(jnp.any(truth > 0), jnp.dot(error[order], steps), 0)

    def one_image(logits, labels):
        probs = jax.nn.softmax(logits).reshape(-1, logits.shape[-1])
        truth = jax.nn.one_hot(labels.astype(int).ravel(), logits.shape[-1])
        values = jax.vmap(one_class, in_axes=1)(jnp.abs(truth - probs), truth)
        return jnp.sum(values) / jnp.sum(jnp.any(truth > 0, axis=0))

    return jax.vmap(one_image)(logits, labels)


@settings(max_examples=16, deadline=None)
@given(shape=st.sampled_from([(1, 1, 1, 2), (2, 3, 5, 3)]), seed=SEEDS)
def test_lovasz_equals_the_authors_algorithm(shape, seed):
    rng, logits, _, labels = draw(shape, seed)
    labels = labels.astype(np.float32)
    plain_form.check(_lovasz, _lovasz_by_the_authors, logits, labels, rng=rng)
