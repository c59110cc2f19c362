"""NNX and Equinox modules as models equal the modules themselves."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models, train

if os.environ.get("CI"):
    import equinox as eqx
else:
    eqx = pytest.importorskip("equinox")


class OfNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])
        self.head = nnx.Conv(4, 2, (1, 1), rngs=rngs)

    def __call__(self, image):
        x = nnx.relu(self.norm(self.conv(image)))
        return self.head(self.drops[1](self.drops[0](x)))


class OfEquinox(eqx.Module):
    conv: eqx.nn.Conv2d
    rest: list
    drop: eqx.nn.Dropout
    order: jax.Array

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=one)
        self.rest = [eqx.nn.GroupNorm(2, 4), eqx.nn.Conv2d(4, 2, 1, key=two)]
        self.drop = eqx.nn.Dropout(0.5)
        self.order = jnp.array([1, 0])  # An array of integers is not a parameter.

    def __call__(self, image, *, key=None):
        x = self.drop(jax.nn.relu(self.rest[0](self.conv(image))), key=key)
        return self.rest[1](x)[self.order]


@pytest.fixture
def image(key):
    return jax.random.normal(key, (2, 8, 8, 3))


KEY = jax.random.key(3)


def in_training(model, variables, image, key):
    apply = jax.jit(
        lambda v, k: model.apply(
            v, image=image, train=True, rngs=train.rng_streams(k), mutable=["state"]
        )
    )
    return apply(variables, key)


def test_nnx_evaluates_as_the_module(image):
    model = models.from_nnx(OfNNX)
    variables = jax.jit(model.init)(KEY)
    assert variables["state"]["norm"].keys() == {"mean", "var"}
    module = OfNNX(nnx.Rngs(KEY))
    module.eval()
    got = model.apply(variables, image=image)
    np.testing.assert_allclose(got, module(image), rtol=1e-5, atol=1e-6)


def test_nnx_training_updates_statistics_and_uses_the_keys_of_the_call(image):
    model = models.from_nnx(OfNNX)
    variables = model.init(KEY)
    one, after = in_training(model, variables, image, jax.random.key(0))
    same, _ = in_training(model, variables, image, jax.random.key(0))
    other, _ = in_training(model, variables, image, jax.random.key(1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    # 0.9 of the old mean, which is 0, and 0.1 of that of the batch.
    conv = variables["params"]["conv"]
    x = jax.lax.conv_general_dilated(
        image,
        conv["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = 0.1 * jnp.mean(x + conv["bias"][None, None, None], (0, 1, 2))
    got = after["state"]["norm"]["mean"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_nnx_streams_differ():
    """Two dropouts of the same shape drop different pixels."""

    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.one = nnx.Dropout(0.5, rngs=rngs)
            self.two = nnx.Dropout(0.5, rngs=rngs.fork())

        def __call__(self, image):
            return self.one(image) - self.two(image)

    model, ones = models.from_nnx(Twice), jnp.ones((1, 8, 8, 1))
    rngs = train.rng_streams(KEY)
    got = model.apply({"params": {}}, image=ones, train=True, rngs=rngs)
    assert np.asarray(got != 0).mean() > 0.2


def test_equinox_evaluates_as_the_module(image):
    model = models.from_equinox(OfEquinox)
    variables = jax.jit(model.init)(KEY)
    assert variables["params"]["rest"].keys() == {"0", "1"}
    np.testing.assert_array_equal(variables["state"]["order"], [1, 0])
    module = eqx.nn.inference_mode(OfEquinox(KEY))
    expected = jax.vmap(module)(jnp.moveaxis(image, -1, 1))
    got = model.apply(variables, image=image)
    np.testing.assert_allclose(got, jnp.moveaxis(expected, 1, -1), rtol=1e-5, atol=1e-6)


def test_equinox_dropout_uses_the_key_of_the_call(image):
    model = models.from_equinox(OfEquinox)
    variables = model.init(KEY)
    image = jnp.broadcast_to(image[:1], image.shape)
    one, after = in_training(model, variables, image, jax.random.key(0))
    same, _ = in_training(model, variables, image, jax.random.key(0))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one[0], one[1])  # Each image has its own key.
    np.testing.assert_array_equal(after["state"]["order"], [1, 0])


def test_equinox_with_state_is_rejected():
    norm = eqx.nn.make_with_state(eqx.nn.BatchNorm)
    model = models.from_equinox(lambda key: norm(4, "batch", mode="batch"))
    with pytest.raises(ValueError, match=r"without eqx.nn.State.*GroupNorm"):
        model.init(KEY)
