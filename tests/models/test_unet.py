import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import models
from segjax.models import layers

WIDTHS = (4, 4, 4, 4, 4)


@pytest.mark.parametrize("size", [(572, 388), (188, 4), (185, 1), (200, 16)])
def test_valid_padding_has_the_geometry_of_the_paper(shapes, size):
    taken, given = size
    model = models.UNet(2, widths=WIDTHS, norm=layers.no_norm, padding="valid")
    _, logits = shapes(model, taken, taken + 3, batch=1)
    assert logits.shape == (1, given, given + 3, 2)


def test_the_paper_has_31_million_parameters(shapes):
    # By hand: 3x3 convolutions with biases, 2x2 ups, a 1x1 head.
    widths = [64, 128, 256, 512, 1024]
    inputs = [3, *widths[:-1]]
    count = sum(
        9 * (i * w + w * w) + 2 * w for i, w in zip(inputs, widths, strict=True)
    )
    for w in widths[:-1]:
        count += 4 * (2 * w) * w + w + 9 * (2 * w * w + w * w) + 2 * w
    count += 64 * 2 + 2
    model = models.UNet(2, norm=layers.no_norm, padding="valid")
    variables, _ = shapes(model, 572, 572, batch=1)
    assert sum(x.size for x in jax.tree.leaves(variables)) == count


def test_logits_of_valid_padding_are_aligned_with_same_padding(key, random_variables):
    # Away from borders, padded and unpadded convolutions are equal.
    build = functools.partial(models.UNet, 2, widths=(4, 4), norm=layers.no_norm)
    image = jax.random.uniform(key, (1, 64, 64, 3))
    variables = random_variables(build())
    same = jax.jit(build().apply)(variables, image)
    valid = jax.jit(build(padding="valid").apply)(variables, image)
    assert valid.shape == (1, 48, 48, 2)
    np.testing.assert_allclose(
        same[:, 16:48, 16:48], valid[:, 8:40, 8:40], rtol=1e-5, atol=1e-6
    )


def test_messages(key):
    image = jnp.zeros((1, 184, 200, 3))
    with pytest.raises(ValueError, match="at least 185x185 pixels, got 184x200"):
        models.UNet(2, widths=WIDTHS, padding="valid").init(key, image)
    with pytest.raises(ValueError, match='"same" or "valid", got \'full\''):
        models.UNet(2, padding="full").init(key, image)


def test_batch_stats_change_in_training_only(key, random_variables):
    model = models.UNet(2, widths=(4, 4), norm=layers.batch_norm)
    image = jax.random.uniform(key, (2, 8, 8, 3))
    variables = random_variables(model)
    stats = variables["batch_stats"]
    run = jax.jit(
        functools.partial(model.apply, mutable=["batch_stats"]),
        static_argnames="train",
    )
    _, after = run(variables, image, train=False)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], stats)
    _, after = run(variables, image, train=True)
    changed = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), after["batch_stats"], stats
    )
    assert all(jax.tree.leaves(changed))


def test_batch_norm_over_devices_equals_one_program(key, random_variables):
    build = functools.partial(models.UNet, 2, widths=(4, 4), norm=layers.batch_norm)
    image = jax.random.uniform(key, (4, 8, 8, 3))
    variables = random_variables(build())

    def run(model, image):
        return model.apply(variables, image, train=True, mutable=["batch_stats"])

    want, stats = jax.jit(functools.partial(run, build()))(image)
    mapped = jax.pmap(functools.partial(run, build(axis_name="i")), axis_name="i")
    got, mapped_stats = mapped(image.reshape(2, 2, 8, 8, 3))
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-5),
        mapped_stats,
        stats,
    )


def test_dropout_only_in_training(key, random_variables):
    model = models.UNet(2, widths=(4, 4), dropout=0.5)
    image = jax.random.uniform(key, (1, 8, 8, 3))
    variables = random_variables(model)
    run = jax.jit(model.apply, static_argnames="train")
    still = run(variables, image)
    np.testing.assert_array_equal(still, run(variables, image, rngs={"dropout": key}))
    assert np.any(still != run(variables, image, train=True, rngs={"dropout": key}))


@pytest.mark.parametrize("width", [1, 6, 12, 20])
def test_group_norm_accepts_any_width(shapes, width):
    _, logits = shapes(models.UNet(2, widths=(width, width)), 8, 8)
    assert logits.shape == (2, 8, 8, 2)
