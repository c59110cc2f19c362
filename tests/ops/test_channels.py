"""Norms against the formula in float64, and against Flax."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops
from segjax.models import layers

SHAPES = [(2, 24, 40, 16), (3, 5, 7, 8), (1, 1, 1, 8), (2, 3, 1, 520)]
"""Rows of several pixels, odd sizes, one pixel, and rows of one pixel."""


def arrays(shape, seed=0):
    """Features far from 0, scale, bias, a mask, and what multiplies the result."""
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 3, shape)
    scale, bias = rng.normal(1, 0.3, shape[-1:]), rng.normal(size=shape[-1:])
    mask = rng.random((*shape[:3], 1)) < 0.7
    mask[:, 0, 0] = True
    return x, scale, bias, mask, rng.normal(size=shape)


def by_formula(x, scale, bias, mask, groups, epsilon):
    """The textbook's sums, in NumPy or JAX, of images with weights."""
    axes = (0, 1, 2)
    if groups:
        split = (*x.shape[:3], groups, -1)
        x, weights, axes = x.reshape(split), mask[..., None], (1, 2, 4)
    else:
        weights = mask
    weights = jnp.broadcast_to(weights, x.shape)
    count = weights.sum(axes, keepdims=True)
    mean = (weights * x).sum(axes, keepdims=True) / count
    variance = (weights * (x - mean) ** 2).sum(axes, keepdims=True) / count
    normal = ((x - mean) / jnp.sqrt(variance + epsilon)).reshape(*mask.shape[:3], -1)
    return normal * scale[None, None, None] + bias[None, None, None]


def ours(x, scale, bias, mask, groups, epsilon):
    if groups:
        return ops.normalize_groups(
            x, scale, bias, groups=groups, mask=mask, epsilon=epsilon
        )
    return ops.normalize_batch(x, scale, bias, mask=mask, epsilon=epsilon)[0]


@pytest.mark.parametrize("groups", [None, 8], ids=["batch", "groups"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_value_and_gradients_in_both_modes(shape, groups, masked):
    x, scale, bias, mask, seen = arrays(shape)
    with jax.enable_x64(True):
        weights = mask if masked else np.ones_like(mask)
        formula = functools.partial(
            by_formula, mask=weights, groups=groups, epsilon=1e-5
        )
        value, pull = jax.vjp(formula, x, scale, bias)
        gradients = pull(seen)
    small = [np.float32(a) for a in (x, scale, bias, seen)]
    function = functools.partial(
        ours, mask=mask if masked else None, groups=groups, epsilon=1e-5
    )

    @jax.jit
    def run(x, scale, bias, seen):
        value, pull = jax.vjp(function, x, scale, bias)
        forward = jax.jvp(function, (x, scale, bias), (seen, scale, bias))[1]
        return value, pull(seen), forward

    got, got_gradients, forward = run(*small)
    scale_of = lambda a: max(np.abs(a).max(), 1e-3)  # noqa: E731
    np.testing.assert_allclose(got, value, atol=2e-6 * scale_of(value))
    for a, b in zip(got_gradients, gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * scale_of(b))
    with jax.enable_x64(True):
        wanted = jax.jvp(formula, (x, scale, bias), (seen, scale, bias))[1]
    np.testing.assert_allclose(forward, wanted, atol=2e-5 * scale_of(wanted))


def test_statistics_and_second_derivatives():
    x, scale, bias, mask, seen = (np.float32(a) for a in arrays((2, 4, 6, 8)))
    _, mean, variance = ops.normalize_batch(x, scale, bias)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-6)

    def curve(function, t):
        line = lambda t: jnp.sum(jnp.sin(function(x + t * seen)) * seen)  # noqa: E731
        return jax.grad(jax.grad(line))(t)

    fixed = {"scale": scale, "bias": bias, "groups": None, "epsilon": 1e-5}
    got = curve(functools.partial(ours, mask=None, **fixed), 0.1)
    want = curve(functools.partial(by_formula, mask=np.ones_like(mask), **fixed), 0.1)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_two_devices_are_one_batch():
    """Also where their masks have other numbers of True pixels."""
    x, scale, bias, mask, _ = arrays((4, 4, 4, 8))
    x, scale, bias = (np.float32(a) for a in (x, scale, bias))

    def one(x, mask):
        return ops.normalize_batch(x, scale, bias, mask=mask, axis_name="batch")

    halves = [a.reshape(2, 2, *a.shape[1:]) for a in (x, mask)]
    y, mean, variance = jax.vmap(one, axis_name="batch")(*halves)
    whole = ops.normalize_batch(x, scale, bias, mask=mask)
    np.testing.assert_allclose(y.reshape(x.shape), whole[0], atol=1e-5)
    np.testing.assert_allclose(mean[0], whole[1], rtol=1e-5)
    np.testing.assert_allclose(variance[1], whole[2], rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_layers_have_the_parameters_and_averages_of_flax(train):
    x = np.float32(arrays((2, 4, 6, 8))[0])
    flax_norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
    variables = flax_norm.init(jax.random.key(0), x)
    variables = jax.tree.map(
        lambda a: a + 0.1 * jnp.arange(a.size, dtype=a.dtype), variables
    )
    want, wanted_state = flax_norm.apply(variables, x, mutable=["batch_stats"])
    norm = layers.BatchNorm(axis_name=None)
    assert jax.tree.structure(norm.init(jax.random.key(0), x, None, train=train)) == (
        jax.tree.structure(variables)
    )
    got, state = norm.apply(variables, x, None, train=train, mutable=["batch_stats"])
    np.testing.assert_allclose(got, want, atol=3e-5)
    for a, b in zip(*map(jax.tree.leaves, (state, wanted_state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)

    group = nn.GroupNorm(num_groups=4)
    variables = group.init(jax.random.key(0), x)
    got = layers.GroupNorm(4).apply(variables, x, None)
    np.testing.assert_allclose(got, group.apply(variables, x), atol=3e-5)


def test_bfloat16_is_computed_in_float32():
    x, scale, bias, _, _ = arrays((2, 8, 8, 8))
    x = jnp.asarray(x, jnp.bfloat16)
    scale, bias = np.float32(scale), np.float32(bias)
    got, mean, _ = ops.normalize_batch(x, scale, bias)
    want, wanted_mean, _ = ops.normalize_batch(x.astype(jnp.float32), scale, bias)
    assert got.dtype == jnp.bfloat16
    assert mean.dtype == jnp.float32
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
    np.testing.assert_array_equal(mean, wanted_mean)


def test_a_mask_without_pixels_has_mean_and_variance_0():
    x, scale, bias, mask, _ = arrays((2, 4, 4, 8))
    mask[0] = False
    y = ops.normalize_groups(
        np.float32(x), np.float32(scale), np.float32(bias), groups=2, mask=mask
    )
    assert np.isfinite(y).all()


def test_other_backends_take_plain_sums(monkeypatch):
    x, scale, bias, _, _ = (np.float32(a) for a in arrays((2, 8, 8, 16)))
    want = ops.normalize_batch(x, scale, bias)[0]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    fresh = lambda x: ops.normalize_batch(x, scale, bias)[0]  # noqa: E731
    assert "optimization_barrier" not in str(jax.make_jaxpr(fresh)(x))
    np.testing.assert_allclose(fresh(x), want, atol=1e-5)


def test_bias_is_added_with_its_gradient():
    x, _, bias, _, seen = (np.float32(a) for a in arrays((2, 5, 6, 16)))
    value, pull = jax.vjp(ops.add_bias, x, bias)
    np.testing.assert_array_equal(value, x + bias)
    np.testing.assert_array_equal(pull(seen)[0], seen)
    np.testing.assert_allclose(pull(seen)[1], seen.sum((0, 1, 2)), rtol=1e-5, atol=1e-5)
