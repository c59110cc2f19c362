"""Properties of every semantic model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import layers


@pytest.mark.parametrize("size", [(97, 61), (1, 1), (33, 64)])
def test_logits_have_the_input_size(build, shapes, size):
    _, logits = shapes(build(), *size)
    assert logits.shape == (2, *size, 3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_and_logits_are_float32_at_any_dtype(build, shapes, dtype):
    variables, logits = shapes(build(dtype=dtype), 9, 9)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.float32.dtype}
    assert logits.dtype == jnp.float32


def test_bfloat16_is_used_and_stays_close(build, random_variables, rng):
    image = rng.uniform(size=(2, 8, 8, 3)).astype(np.float32)
    variables = random_variables(build())
    exact = jax.jit(build().apply)(variables, image)
    rounded = jax.jit(build(dtype=jnp.bfloat16).apply)(variables, image)
    difference = np.abs(np.subtract(exact, rounded)).max() / np.std(exact)
    assert 1e-4 < difference < 0.2


def test_one_pixel_is_finite_and_any_batch_compiles_once(build, random_variables, rng):
    model = build()
    variables = random_variables(model)
    traces = []

    @jax.jit
    def forward(image):
        traces.append(image.shape)
        return model.apply(variables, image)

    for _ in range(3):
        logits = forward(rng.uniform(size=(1, 1, 1, 3)).astype(np.float32))
        assert np.isfinite(logits).all()
    assert len(traces) == 1


def test_every_parameter_has_a_gradient(build, random_variables, key, rng):
    model = build()
    image = rng.uniform(size=(2, 16, 16, 3)).astype(np.float32)
    variables = random_variables(model)
    params = variables.pop("params")

    @jax.jit
    def gradients(params):
        def total(params):
            logits, _ = model.apply(
                {"params": params, **variables},
                image,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return jnp.sum(jax.nn.log_softmax(logits)[..., 0] * image[..., 0])

        return jax.grad(total)(params)

    for path, gradient in jax.tree.leaves_with_path(gradients(params)):
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_names_of_parameters_do_not_change(build, shapes):
    first, _ = shapes(build(), 8, 8)
    second, _ = shapes(build(), 21, 30)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, second)


def test_uint8_images_are_rejected():
    with pytest.raises(AssertionError, match="float"):
        layers.check_image(np.zeros((1, 8, 8, 3), np.uint8))
