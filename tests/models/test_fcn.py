import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models, ops
from segjax.models import layers

VGG_16 = 138_357_544
"""Parameters of the published classifier with 1,000 classes."""


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_parameters_are_those_of_vgg_16(shapes, stride):
    variables, logits = shapes(models.FCN(21, stride=stride), 64, 64, batch=1)
    count = VGG_16 - (4096 * 1000 + 1000) + 4096 * 21 + 21
    if stride <= 16:  # A score of pool 4, and 4x4 upsampling without bias.
        count += 512 * 21 + 21 + 16 * 21 * 21
    if stride <= 8:
        count += 256 * 21 + 21 + 16 * 21 * 21
    assert sum(x.size for x in jax.tree.leaves(variables)) == count
    assert logits.shape == (1, 64, 64, 21)


def test_learned_upsampling_starts_as_bilinear(key, rng):
    x = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    layer = layers.BilinearConv(3)
    got = layer.apply(layer.init(key, x), x)
    np.testing.assert_allclose(got, ops.resize_bilinear(x, (10, 12)), atol=1e-6)


def test_upsampling_preserves_a_ramp(key):
    x = jnp.arange(5.0)[None, :, None, None] * jnp.ones((1, 1, 3, 1))
    layer = layers.BilinearConv(1)
    got = layer.apply(layer.init(key, x), x)[0, :, 2, 0]
    # Pixel i of the result is at (i + 1/2) / 2 - 1/2 of the input.
    want = np.clip((np.arange(10) + 0.5) / 2 - 0.5, 0, 4)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_finer_net_starts_with_the_prediction_of_the_coarser_one(key):
    model = models.FCN(3, stride=2, widths=(4, 4), convs=(1, 1), head_width=4)
    image = jax.random.uniform(key, (1, 16, 24, 3))
    variables = jax.jit(model.init)(key, image)
    logits, captured = jax.jit(
        functools.partial(
            model.apply, capture_intermediates=True, mutable=["intermediates"]
        )
    )(variables, image)
    scores = captured["intermediates"]["score"]["__call__"][0]
    assert scores.shape == (1, 4, 6, 3)
    assert np.std(scores) > 0
    want = ops.resize_bilinear(ops.resize_bilinear(scores, (8, 12)), (16, 24))
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


def test_dropout_only_in_training(key, random_variables):
    model = models.FCN(2, widths=(4,), convs=(1,), head_width=8, stride=2)
    image = jax.random.uniform(key, (1, 8, 8, 3))
    variables = random_variables(model)
    run = jax.jit(model.apply, static_argnames="train")
    still = run(variables, image)
    np.testing.assert_array_equal(still, run(variables, image, rngs={"dropout": key}))
    assert np.any(still != run(variables, image, train=True, rngs={"dropout": key}))


def test_messages(key):
    image = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"stride in \[2, 4, 8, 16, 32\], got 12"):
        models.FCN(2, stride=12).init(key, image)
    with pytest.raises(ValueError, match="got 2 and 5"):
        models.FCN(2, widths=(4, 4)).init(key, image)
