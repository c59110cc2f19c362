"""One program for several seeds gives the states of single-seed programs."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from segjax import data, losses, models, train
from segjax.data.builders import digits
from segjax.train import multi_seed, sharding
from segjax.train.experiment import build_step
from tests.scenes import experiment

SEEDS, STEPS = 4, 20
FORMS = {
    "unrolled": lambda step, mesh: multi_seed.unrolled(step, mesh=mesh),
    "vmapped": lambda step, mesh: multi_seed.vmapped(step, mesh=mesh, seeds=SEEDS),
}


def experiments(make):
    return [make(seed=seed) for seed in range(SEEDS)]


def start(made):
    """Initial states and batch streams of experiments that differ in their seed."""
    shape = next(made[0].data.train_batches(batch_size=1, seed=0))["image"].shape[1:]
    init = train.initializer(made[0], {"image": ("uint8", shape)})
    states = [init(jax.random.key(e.config.seed)) for e in made]
    streams = [
        e.data.train_batches(batch_size=e.config.batch_size, seed=e.config.seed)
        for e in made
    ]
    return states, streams


def single_runs(made):
    """Final states of the seeds, each trained by a one-seed program on one device."""
    states, streams = start(made)
    mesh = sharding.make_mesh(jax.devices()[:1])
    step = sharding.jit_step(build_step(made[0]), mesh)
    for i, stream in enumerate(streams):
        for _ in range(STEPS):
            states[i], _ = step(states[i], next(stream))
        stream.close()
    return jax.device_get([s.params for s in states])


def at_once(made, form, devices):
    """Final states of the seeds, trained by one program."""
    states, streams = start(made)
    mesh = multi_seed.mesh_of_seeds(SEEDS, jax.devices()[:devices])
    form = FORMS[form](build_step(made[0]), mesh)
    groups = form.pack(states)
    for _ in range(STEPS):
        groups, scalars = form.update(
            groups, form.pack_batches([next(s) for s in streams])
        )
    for stream in streams:
        stream.close()
    assert [int(form.unpack(groups, i).step) for i in range(SEEDS)] == [STEPS] * SEEDS
    assert len(scalars) == SEEDS
    assert {s["loss"].shape for s in scalars} == {()}
    return jax.device_get([form.unpack(groups, i).params for i in range(SEEDS)])


def difference(a, b):
    return max(
        float(np.max(np.abs(x - y)))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture(scope="module")
def scenes():
    """An experiment with augmentation and momentum, and the states of single runs."""
    made = experiments(
        lambda seed: experiment(
            seed=seed,
            steps=STEPS,
            augment=data.augment.horizontal_flip,
            optimizer=optax.sgd(0.1, momentum=0.9),
            model=models.SimpleCNN(num_classes=3, width=8),
        )
    )
    return made, single_runs(made)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_parameters_equal_those_of_single_runs(scenes, form, devices):
    made, solo = scenes
    several = at_once(made, form, devices)
    assert_near(several, solo)
    if (form, devices) == ("unrolled", 1):
        assert difference(several, solo) == 0.0


def assert_near(several, solo, *, within=1e-4):
    for mine, own in zip(several, solo, strict=True):
        assert difference(mine, own) < within
    assert difference(several[0], solo[1]) > 1e-2  # The test can tell seeds apart.


def digits_unet(**changes):
    """experiments/digits_unet.py with a small network on few scenes."""
    scenes = {"train": [digits.scene("train", i) for i in range(48)]}
    classes = ("background", *"0123456789")
    made = experiment(
        steps=STEPS,
        model=models.UNet(
            num_classes=11, widths=(8, 16), norm=models.layers.batch_norm
        ),
        dataset_=data.Dataset("digits", classes, scenes, "digits"),
        **changes,
    )
    objective = losses.semantic(
        ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
    )
    return dataclasses.replace(made, objective=objective)


@pytest.mark.slow
def test_digits_with_batch_norm_and_adamw_are_equal_bit_for_bit():
    made = experiments(lambda seed: digits_unet(seed=seed, optimizer=optax.adamw(3e-3)))
    assert difference(at_once(made, "unrolled", 1), single_runs(made)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("form", "devices"), [("unrolled", 4), ("vmapped", 1)])
def test_digits_with_batch_norm_are_equal_to_rounding(form, devices):
    # Not AdamW, which amplifies gradients that are only rounding, and not a high
    # rate, with which more ReLUs change their sign. Some do: 1.3e-4 on one machine.
    made = experiments(lambda seed: digits_unet(seed=seed, optimizer=optax.sgd(0.02)))
    assert_near(at_once(made, form, devices), single_runs(made), within=5e-4)


def test_each_device_holds_its_own_seeds():
    trees = [{"x": np.full(3, i)} for i in range(4)]
    step = lambda state, batch: (state, {})  # noqa: E731
    for make in FORMS.values():
        form = make(step, multi_seed.mesh_of_seeds(4, jax.devices()[:4]))
        (group,) = form.pack(trees)
        seen = {s.device: s.data.tolist() for s in group["x"].addressable_shards}
        assert list(seen.values()) == [[[i] * 3] for i in range(4)]
        np.testing.assert_array_equal(form.unpack((group,), 2)["x"], [2, 2, 2])


@pytest.mark.parametrize(
    ("seeds", "devices", "used"),
    [(4, 4, 4), (8, 4, 4), (6, 4, 3), (5, 4, 1), (2, 4, 2)],
)
def test_devices_that_divide_the_seeds(seeds, devices, used):
    assert multi_seed.mesh_of_seeds(seeds, jax.devices()[:devices]).size == used


def test_cpus_unroll_and_gpus_vmap(monkeypatch):
    step = lambda state, batch: (state, {})  # noqa: E731
    mesh = multi_seed.mesh_of_seeds(4, jax.devices()[:2])
    assert multi_seed.fastest(step, mesh=mesh, seeds=4).rows == 2  # Unrolled.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert multi_seed.fastest(step, mesh=mesh, seeds=4).rows == 4  # Vmapped.
