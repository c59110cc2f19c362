"""Convolutions that compute norm, bias and ReLU: values, and which are fused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models, onednn, ops
from tests.onednn.machine import NEEDED

pytestmark = NEEDED
layers = models.layers


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    monkeypatch.delenv("SEGJAX_ONEDNN")


def fuse(function, *args, looped=False):
    """The fused function, and its calls of oneDNN by name."""

    def run(*args):
        program = jax.make_jaxpr(function, return_shape=True)(*args)
        return onednn.fused(*program, looped=looped)(*args)

    text = jax.jit(run).lower(*args).as_text()
    assert ("@segjax_onednn_pack(" in text) == looped
    names = ("forward", "rectified")
    return run, [text.count(f"@segjax_onednn_{name}(") for name in names]


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


X, KERNEL, CHANNELS, RESIDUAL = arrays(
    (2, 6, 5, 3), (3, 3, 3, 7), (1, 1, 1, 7), (2, 6, 5, 7)
)


def conv(x, kernel=KERNEL):
    return ops.conv(x, kernel)


def norm(y):
    return (y - CHANNELS) * (2 + CHANNELS) + CHANNELS


def twice(x):
    y = conv(x)
    return jax.nn.relu(y) + y


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (lambda x: jax.nn.relu(norm(conv(x))), [0, 1]),
        (lambda x: jax.nn.relu(ops.add_bias(conv(x), CHANNELS[0, 0, 0])), [0, 1]),
        (lambda x: jax.nn.relu(conv(x)), [0, 1]),
        (lambda x: jnp.maximum(0.0, CHANNELS + conv(x)), [0, 1]),
        (lambda x: jax.jit(lambda x: jax.nn.relu(norm(conv(x))))(x), [0, 1]),
        (lambda x: norm(conv(x)), [1, 0]),
        (lambda x: jax.nn.relu(norm(conv(x)) + RESIDUAL), [1, 0]),
        (lambda x: jnp.maximum(CHANNELS, norm(conv(x))), [1, 0]),
        (lambda x: conv(x) * CHANNELS, [1, 0]),
        (lambda x: CHANNELS - conv(x), [1, 0]),
        (lambda x: conv(x) / CHANNELS, [1, 0]),
        (lambda x: jnp.maximum(conv(x), 0.5), [1, 0]),
        (lambda x: jnp.maximum(conv(x), jnp.sum(x)), [1, 0]),
        (lambda x: conv(x) + RESIDUAL[:1], [1, 0]),
        (lambda x: conv(x) + conv(2 * x), [2, 0]),
        (lambda x: conv(conv(x), arrays((3, 3, 7, 2))[0]), [2, 0]),
        (twice, [1, 0]),
        (lambda x: {"a": conv(x), "b": [jnp.zeros(3), 1]}, [1, 0]),
    ],
)
def test_what_is_fused(function, calls):
    run, found = fuse(function, X)
    assert found == calls
    for ours, theirs in zip(
        jax.tree.leaves(jax.jit(run)(X)), jax.tree.leaves(function(X)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        (models.UNet(3, (8, 16), norm=layers.batch_norm), [0, 6]),
        (models.UNet(3, (8, 16), norm=layers.frozen_norm), [0, 6]),
        (models.UNet(3, (8, 16), norm=layers.no_norm), [0, 6]),
        (models.UNet(3, (8, 16)), [6, 0]),
        (models.SimpleCNN(3), [1, 1]),
    ],
)
def test_networks(model, calls):
    image = arrays((2, 16, 16, 3))[0]
    variables = jax.jit(model.init)(jax.random.key(0), image)
    leaves, structure = jax.tree.flatten(variables)
    for i, leaf in enumerate(leaves):
        if leaf.ndim == 1:  # Of a norm, or a bias: positive, as variances are.
            leaves[i] = leaf + abs(arrays(leaf.shape, seed=i)[0]) / 9
    variables = jax.tree.unflatten(structure, leaves)
    run, found = fuse(lambda *at: model.apply(*at, train=False), variables, image)
    assert found == calls
    np.testing.assert_allclose(
        jax.jit(run)(variables, image), model.apply(variables, image), atol=1e-5
    )


@pytest.mark.parametrize("outputs", [1, 5, 8, 16, 24, 48, 64, 100, 160])
@pytest.mark.parametrize(
    "options",
    [{}, {"strides": 2}, {"dilation": 2, "padding": "VALID", "strides": 3}],
    ids=str,
)
def test_kernels_of_any_shape_are_packed(outputs, options):
    x, kernel, shift = arrays((2, 9, 8, 20), (3, 2, 20, outputs), (outputs,))

    def function(x, kernel):
        return jax.nn.relu(ops.add_bias(ops.conv(x, kernel, **options), shift))

    run, found = fuse(function, x, kernel, looped=True)
    assert found == [0, 1]
    np.testing.assert_allclose(
        jax.jit(run)(x, kernel), function(x, kernel), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("channels", [5, 16, 40])
def test_depthwise_kernels_are_packed(channels):
    x, kernel = arrays((2, 9, 8, channels), (3, 3, 1, channels))

    def function(x, kernel):
        return jax.nn.relu(ops.depthwise_conv(x, kernel))

    run, found = fuse(function, x, kernel, looped=True)
    assert found == [0, 1]
    np.testing.assert_allclose(
        jax.jit(run)(x, kernel), function(x, kernel), rtol=1e-5, atol=1e-5
    )


def test_numbers_that_are_not_finite_stay():
    def function(x):
        return jax.nn.relu(norm(conv(x)))

    run, _ = fuse(function, X)
    for bad in (np.nan, np.inf, -np.inf):
        x = X.copy()
        x[0, 0, 0, 0] = bad
        ours, theirs = run(x), function(x)
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_array_equal(np.isposinf(ours), np.isposinf(theirs))


def test_negative_numbers_become_less_than_any_rounding():
    run, _ = fuse(lambda x: jax.nn.relu(conv(x)), X)
    found, plain = np.asarray(run(X)), np.asarray(conv(X))
    assert (plain < 0).any()
    assert abs(found[plain < 0]).max() < 1e-28


@pytest.mark.parametrize("looped", [False, True])
def test_derivatives_and_vmap(looped):
    def function(x, kernel, shift):
        return jnp.sin(jax.nn.relu(conv(x, kernel) + shift))

    at = X, KERNEL, CHANNELS
    run, found = fuse(function, *at, looped=looped)
    assert found == [0, 1]
    for ours, theirs in (
        (
            jax.grad(lambda *at: run(*at).sum(), (0, 1, 2)),
            jax.grad(lambda *at: function(*at).sum(), (0, 1, 2)),
        ),
        (lambda *at: jax.jvp(run, at, at), lambda *at: jax.jvp(function, at, at)),
        (
            lambda *at: jax.vmap(run, (0, None, None))(at[0][:, None], *at[1:]),
            lambda *at: jax.vmap(function, (0, None, None))(at[0][:, None], *at[1:]),
        ),
    ):
        for a, b in zip(ours(*at), theirs(*at), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_exported_programs_need_no_onednn():
    run, _ = fuse(lambda x: jax.nn.relu(norm(conv(x))), X)
    exported = jax.export.export(jax.jit(run), platforms=["cpu", "cuda"])(X)
    assert "segjax_onednn" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(X), run(X), atol=1e-5)
