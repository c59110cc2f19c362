"""Operations, dtypes and donated arrays of the compiled step."""

import collections
import re

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import losses, models, ops, train


def turned(key, example):
    """An augmentation with an operation that is easy to find: a sine."""
    angle = jax.random.uniform(key)
    return example | {"image": jnp.sin(angle) * example["image"]}


@pytest.fixture(scope="module")
def half():
    """State and lowered step of a bfloat16 U-Net with batch norm and AdamW."""
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
    # Except the key, which updates do not change, and alignment.
    aliased = compiled.memory_analysis().alias_size_in_bytes
    assert size - 64 <= aliased <= 1.05 * size + 64


def test_images_are_converted_to_floats_on_the_device(half):
    _, batch, lowered, _ = half
    here = next(train.to_devices([batch], train.make_mesh(jax.devices()[:1])))
    assert here["image"].dtype == jnp.uint8
    assert "tensor<4x16x16x3xui8>" in _arguments(lowered)
    assert "tensor<4x16x16x3xf32>" not in _arguments(lowered)


def test_augmentation_is_part_of_the_step(half):
    assert "stablehlo.sine" in half[2].as_text()


def test_the_state_is_float32_and_convolutions_are_bfloat16(half):
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
    # The head, which is float32 for the losses, with its two gradients, and the
    # overlap of Dice with its gradient: all over the three classes.
    assert len(kept) == 5, kept
    assert all("x3xf32" in operands for operands, _ in kept)


def primitives(jaxpr):
    """Yields the names of all operations of a program, including nested ones."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for part in jax.extend.core.jaxprs_in_params(equation.params):
            yield from primitives(part)


@pytest.mark.parametrize("seeds", [1, 3], ids=["one", "vmapped"])
def test_the_step_has_only_the_users_arithmetic(seeds):
    """Apart from the user's functions, the step counts, divides and updates."""
    model = models.SimpleCNN(num_classes=3, width=2)
    optimizer = optax.sgd(0.1)
    state = train.init_state(model, optimizer, seed=0, image_shape=(8, 8, 3))
    batch = {
        "image": np.zeros((2, 8, 8, 3), np.uint8),
        "label": np.zeros((2, 8, 8), np.uint8),
        "weight": np.ones(2, np.float32),
        "index": np.arange(2, dtype=np.int32),
    }
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    step = train.make_train_step(train.make_forward(model), objective, optimizer)

    def by_hand(state, batch):
        """The same update, implemented without the library's step."""

        def loss(params):
            x = jnp.asarray(batch["image"], jnp.float32) / 255
            valid = batch["label"] != 255
            logits = model.apply({"params": params}, x, train=True)
            label = jnp.where(valid, batch["label"], 0).astype(jnp.int32)
            truth = batch | {"label": label, "valid": valid}
            count = jnp.maximum(batch["weight"].sum(), 1)
            return (objective(logits, truth)["ce"] * batch["weight"]).sum() / count

        value, grads = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
        norm = optax.tree.norm(grads)
        return new, {"loss": value, "loss/ce": value, "grad_norm": norm}

    found = []
    for made in (step, by_hand):
        arguments = state, batch
        if seeds > 1:
            made = jax.vmap(made)
            arguments = jax.tree.map(lambda x: jnp.stack([x] * seeds), arguments)
        found.append(
            collections.Counter(primitives(jax.make_jaxpr(made)(*arguments).jaxpr))
        )
    assert not found[1] - found[0]
    # The keys of the update, and a sum over pmap's devices, of which there are none.
    more = found[0] - found[1]
    keys = {"random_fold_in", "random_split", "slice", "squeeze"}
    assert set(more) <= keys | {"convert_element_type", "reduce_sum", "add"}, more
    assert more.total() <= 10


def test_a_digest_in_the_step_would_be_detected():
    digest = jax.make_jaxpr(ops.digest)({"w": np.zeros(3, np.float32)})
    names = set(primitives(digest.jaxpr))
    assert {"shift_right_logical", "bitcast_convert_type", "xor"} <= names


def _arguments(lowered) -> str:
    """The line of the program that lists its arguments."""
    return next(x for x in lowered.as_text().splitlines() if "@main" in x)
