"""What the compiled step is made of: nothing is wasted in it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import losses, models, train


def turned(key, example):
    """An augmentation that leaves a trace in the program: a sine."""
    angle = jax.random.uniform(key)
    return example | {"image": jnp.sin(angle) * example["image"]}


@pytest.fixture(scope="module")
def half():
    """A U-Net's step in bfloat16, with batch norm and AdamW: state, and lowered."""
    model = models.UNet(
        num_classes=3,
        widths=(4, 8),
        norm=models.layers.batch_norm,
        dtype=jnp.bfloat16,
    )
    optimizer = optax.adamw(1e-3)
    state = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8),
        "label": rng.integers(0, 3, (4, 16, 16)).astype(np.int32),
        "valid": np.ones((4, 16, 16), bool),
        "weight": np.ones(4, np.float32),
        "index": np.arange(4, dtype=np.int32),
    }
    objective = losses.semantic(
        ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
    )
    step = train.make_train_step(
        train.make_forward(model), objective, optimizer, turned
    )
    mesh = train.make_mesh(jax.devices()[:1])
    lowered = train.jit_step(step, mesh).lower(state, batch)
    return state, batch, lowered, lowered.compile()


def test_every_array_of_the_state_is_donated(half):
    state, _, _, compiled = half
    leaves = jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))
    size = sum(x.nbytes for x in leaves)
    # But for the key, which no update changes, and alignment.
    aliased = compiled.memory_analysis().alias_size_in_bytes
    assert size - 64 <= aliased <= 1.05 * size + 64


def test_bytes_go_to_the_device_and_become_floats_there(half):
    _, batch, lowered, _ = half
    here = next(train.to_devices([batch], train.make_mesh(jax.devices()[:1])))
    assert here["image"].dtype == jnp.uint8
    assert "tensor<4x16x16x3xui8>" in _arguments(lowered)
    assert "tensor<4x16x16x3xf32>" not in _arguments(lowered)


def test_augmentation_is_in_the_program_of_the_step(half):
    assert "stablehlo.sine" in half[2].as_text()


def test_bfloat16_computes_and_float32_is_kept(half):
    state, batch, lowered, compiled = half
    new, scalars = compiled(jax.tree.map(jnp.copy, state), batch)
    for x in jax.tree.leaves((new.params, new.model_state, new.opt_state)):
        assert x.dtype in (jnp.float32, jnp.int32)  # AdamW counts its updates.
    assert {x.dtype for x in scalars.values()} == {jnp.dtype(jnp.float32)}
    products = re.findall(
        r"stablehlo\.(?:convolution|dot_general).*: \((.*)\) -> (.*)",
        lowered.as_text(),
    )
    assert len(products) > 10
    kept = [p for p in products if "f32" in "".join(p).replace("bf16", "")]
    # The head, whose logits the losses read, with its two gradients, and the overlap
    # of Dice with its gradient: all over the three classes.
    assert len(kept) == 5, kept
    assert all("x3xf32" in operands for operands, _ in kept)


def _arguments(lowered) -> str:
    """The line of the program that lists what it takes."""
    return next(x for x in lowered.as_text().splitlines() if "@main" in x)
