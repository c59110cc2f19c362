"""The examples of docs/finetuning.md run as printed; its commands name what exists."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import experiments, interop, train
from tests.docs.blocks import DOCS, blocks

PAGE = "finetuning.md"


def run(heading):
    made = {"__name__": "example"}
    exec(compile(blocks(PAGE)[heading], f"{PAGE}, {heading}", "exec"), made)
    return made


def test_an_experiment_with_the_pretrained_encoder():
    experiment = run("Your own photographs")["experiment"]
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    fresh = jax.eval_shape(experiment.model.init, jax.random.key(0), image)
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fresh)
    got = experiment.init_from(fresh)
    assert np.abs(got["params"]["encoder"]["stem"]["conv"]["kernel"]).max() > 0.1
    assert train.build_step(experiment)


def test_an_imported_encoder(tmp_path, monkeypatch):
    made = run("Encoders and decoders")
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    fresh = jax.eval_shape(made["model"].init, jax.random.key(0), image)
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fresh)
    loaded = {
        k: jax.tree.map(lambda x: x + 1, v["encoder"])
        for k, v in fresh.items()
        if "encoder" in v
    }
    monkeypatch.chdir(tmp_path)
    interop.save(tmp_path / "weights/resnet34", loaded)
    got = made["init_from"]()(fresh)
    assert all(np.all(x == 1) for x in jax.tree.leaves(got["params"]["encoder"]))
    assert all(np.all(x == 0) for x in jax.tree.leaves(got["params"]["up0"]))


@pytest.mark.parametrize(
    ("name", "moves"),
    [("frozen", (0, 0)), ("slower", (1e-4, 1e-4)), ("warmed", (0, 1e-4))],
)
def test_optimizers(name, moves):
    """The encoder's first update, and that after 200."""
    optimizer = run("Frozen layers, and learning rates by layer")[name]
    params = {"encoder": {"kernel": jnp.zeros(2)}, "head": {"kernel": jnp.zeros(2)}}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    seen = []
    for _ in range(201):
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        seen.append(float(-updates["encoder"]["kernel"][0]))
        np.testing.assert_allclose(updates["head"]["kernel"], -1e-3, rtol=1e-3)
    np.testing.assert_allclose((seen[0], seen[200]), moves, rtol=1e-3)


def test_another_number_of_classes_is_defined():
    assert callable(run("Another number of classes")["init_from"])


def test_commands_name_scripts_and_flags():
    text = (DOCS / PAGE).read_text()
    commands = re.findall(r"^    segjax train --data DIR (.*)$", text, flags=re.M)
    assert len(commands) == 2
    experiments_of = (experiments.unet, experiments.mask_rcnn)
    for module, flags in zip(experiments_of, commands, strict=True):
        known = {*inspect.signature(module.experiment).parameters, "run"}
        assert {f.replace("-", "_") for f in re.findall(r"--([\w-]+)", flags)} <= known
