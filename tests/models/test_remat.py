"""Rematerialized blocks give the same values in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models
from segjax.models import layers

# Otherwise XLA for CPUs merges the second computation with the first.
KEEP = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def unet(block, norm=layers.batch_norm, widths=(4, 8)):
    return models.UNet(3, widths=widths, norm=norm, dropout=0.5, block=block)


def fcn(block):
    return models.FCN(
        3, widths=(4, 6), convs=(1, 2), head_width=8, stride=2, block=block
    )


def body(block):
    return models.ResNet((1, 2, 1, 1), block, 4, norm=layers.batch_norm)


def mask_rcnn(block):
    return models.MaskRCNN(models.RoIHeads(3), body=body(block), fpn=models.FPN(8))


MODELS = {
    "unet": (unet, layers.ConvBlock),
    "fcn": (fcn, layers.ConvBlock),
    "resnet18": (body, models.BasicBlock),
    "resnet50": (body, models.Bottleneck),
    "mask_rcnn": (mask_rcnn, models.Bottleneck),
}


def pair(name):
    build, block = MODELS[name]
    return build(block), build(models.remat(block))


@pytest.mark.parametrize("name", MODELS)
def test_variables_have_the_same_names(name):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    plain, again = (
        jax.eval_shape(model.init, jax.random.key(0), image) for model in pair(name)
    )
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, again)


def make_step(model, options):
    """(params, other variables, image) -> loss, gradients, changed statistics."""

    def loss(params, rest, image):
        outputs, changed = model.apply(
            {"params": params, **rest},
            image,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
            **options,
        )
        return sum(jnp.mean(jnp.sin(x)) for x in jax.tree.leaves(outputs)), changed

    def step(params, rest, image):
        (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(
            params, rest, image
        )
        return value, grads, changed

    return jax.jit(step)


@pytest.mark.parametrize("name", ["unet", "fcn", "resnet18"])
def test_loss_gradients_and_statistics_are_the_same(name, random_variables, rng):
    plain, again = pair(name)
    image = rng.uniform(size=(2, 32, 32, 3)).astype(np.float32)
    rest, options = random_variables(plain), {}
    if name == "resnet18":
        # Without the right half. Norms of few pixels are exact in float64 only.
        pixel_mask = np.broadcast_to(np.arange(32) < 16, (2, 32, 32))[..., None]
        options = {"pixel_mask": pixel_mask.copy()}
        image, rest = jax.tree.map(np.float64, (image, rest))
    params = rest.pop("params")
    results, convolutions = [], []
    with jax.enable_x64(name == "resnet18"):
        for model in (plain, again):
            lowered = make_step(model, options).lower(params, rest, image)
            run = lowered.compile(compiler_options=KEEP)
            results.append(jax.device_get(run(params, rest, image)))
            convolutions.append(run.as_text().count(" convolution("))
    assert convolutions[1] > convolutions[0]

    def same(a, b):
        scale = np.abs(a).max()
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6 * scale)

    jax.tree.map(same, *results)
    changed = results[1][2].get("batch_stats", {})
    assert jax.tree.structure(changed) == jax.tree.structure(
        rest.get("batch_stats", {})
    )
    for before, after in zip(
        jax.tree.leaves(rest), jax.tree.leaves(changed), strict=True
    ):
        assert np.any(before != after)


@pytest.mark.parametrize("name", ["unet", "resnet18"])
def test_evaluation_is_the_same(name, random_variables, rng):
    plain, again = pair(name)
    image = rng.uniform(size=(1, 32, 32, 3)).astype(np.float32)
    variables = random_variables(plain)
    want, got = (jax.jit(m.apply)(variables, image) for m in (plain, again))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.slow
def test_memory_is_less():
    def bytes_of(block):
        model = unet(block, layers.group_norm, (8, 16, 32, 64))
        image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), image)
        step = make_step(model, {})
        lowered = step.lower(variables["params"], {}, image)
        compiled = lowered.compile(compiler_options=KEEP)
        return compiled.memory_analysis().temp_size_in_bytes

    less, plain = bytes_of(models.remat(layers.ConvBlock)), bytes_of(layers.ConvBlock)
    assert less < 0.6 * plain, (less, plain)


def test_wrapping_twice_gives_the_same_class():
    # So that models with equal attributes are equal.
    assert models.remat(layers.ConvBlock) is models.remat(layers.ConvBlock)
    build = functools.partial(unet, models.remat(layers.ConvBlock))
    assert build() == build()
