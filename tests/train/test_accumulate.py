"""Micro-batches give the gradient of the whole batch, with less memory."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from segjax import models, train
from tests import scenes
from tests.train import agreement


@pytest.fixture(scope="module")
def whole():
    return agreement.three_steps("group_norm", "jit", jax.devices()[:1])


def accumulating(norm, micro_batches, augment=None):
    model = agreement.Tiny(agreement.NORMS[norm])
    return train.make_train_step(
        train.make_forward(model),
        agreement.objective,
        agreement.optimizer,
        augment,
        micro_batches=micro_batches,
    )


def test_micro_batches_with_uneven_weights_add_up_to_the_batch(whole):
    # Two micro-batches have 5 and 4 examples of weight > 0: a mean of means is wrong.
    parts = agreement.three_steps("group_norm", "jit_accumulated", jax.devices()[:1])
    assert agreement.difference(parts, whole) < 1e-5


def test_batch_norm_sees_each_micro_batch_in_turn():
    """Compares with the sum of the gradients of rows 0, 2, ... and 1, 3, ..."""
    batch = agreement.batch()
    model = agreement.Tiny(agreement.NORMS["batch_norm"])
    first = agreement.first_state("batch_norm")
    count = batch["weight"].sum()

    @jax.jit
    def part_of_gradient(params, model_state, part):
        def loss(params):
            logits, new = model.apply(
                {"params": params, **model_state},
                part["image"] / np.float32(255),
                train=True,
                mutable=["batch_stats"],
            )
            terms = agreement.objective(logits, part)
            return jnp.sum(sum(terms.values()) * part["weight"]) / count, new

        return jax.grad(loss, has_aux=True)(params)

    grads, model_state = None, first.model_state
    for j in range(2):
        part = {k: v[j::2] for k, v in batch.items()}
        new, model_state = part_of_gradient(first.params, model_state, part)
        grads = new if grads is None else jax.tree.map(jnp.add, grads, new)
    state, _ = jax.jit(accumulating("batch_norm", 2))(first, batch)

    expected = jax.tree.map(lambda w, g: w - 0.1 * g, first.params, grads)
    assert scenes.relative_difference(state.params, expected) < 1e-5
    assert scenes.relative_difference(state.model_state, model_state) < 1e-5


@pytest.mark.slow
def test_memory_is_that_of_one_micro_batch_and_rows_stay_on_their_device():
    model = models.UNet(num_classes=3, widths=(8, 16))
    state = train.init_state(
        model, agreement.optimizer, seed=0, image_shape=(32, 32, 3)
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8),
        "label": rng.integers(0, 3, (16, 32, 32)).astype(np.int32),
        "valid": np.ones((16, 32, 32), bool),
        "weight": np.ones(16, np.float32),
        "index": np.arange(16, dtype=np.int32),
    }
    parts = (train.make_forward(model), agreement.objective, agreement.optimizer)
    plain = train.make_train_step(*parts)
    accumulated = train.make_train_step(*parts, micro_batches=4)
    bytes_of = {}
    for name, step in (("plain", plain), ("accumulated", accumulated)):
        compiled = train.jit_step(step).lower(state, batch).compile()
        bytes_of[name] = compiled.memory_analysis().temp_size_in_bytes
        text = compiled.as_text()
        assert "all-reduce" in text
        for other in ("all-to-all", "all-gather", "collective-permute"):
            assert other not in text, name
    assert bytes_of["accumulated"] < bytes_of["plain"] / 2.5


def test_the_loop_accumulates(tmp_path):
    lines = {}
    for parts in (1, 2):
        run = tmp_path / str(parts)
        made = scenes.experiment(accumulate=parts, steps=4, log_every=1)
        train.train(made, run=run, console=Console(file=io.StringIO()))
        text = (run / "metrics.jsonl").read_text()
        lines[parts] = [json.loads(line) for line in text.splitlines()]
    for one, two in zip(lines[1], lines[2], strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"images_per_second", "kind", "split"}:
            value = one[name]
            assert two[name] == pytest.approx(value, rel=1e-3), name


def test_messages(tmp_path):
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0"):
        accumulating("group_norm", 0)
    state = agreement.first_state("group_norm")
    with pytest.raises(ValueError, match=r"into 3 micro-batches, got 16 .* 18"):
        jax.eval_shape(accumulating("group_norm", 3), state, agreement.batch())
    with pytest.raises(ValueError, match=r"4 devices times 4 micro.*, got 8 .* 16"):
        train.train(scenes.experiment(accumulate=4), run=tmp_path / "run")
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        train.TrainConfig(steps=1, batch_size=4, accumulate=0)
