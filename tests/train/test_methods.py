"""Methods of docs/extending.md train, resume, and run on seeds and devices.

Their steps and optimizers are read from that page.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import data, metrics, models, train
from segjax.data.builders import digits
from segjax.train import multi_seed, sharding
from tests.docs.blocks import defined
from tests.scenes import experiment, relative_difference
from tests.train.test_loop import records, silent
from tests.train.test_recorder import lines, stop_at  # noqa: F401

STEPS, STOP = 12, 5
SGD = optax.sgd(0.1, momentum=0.9)
ENCODER = ("down0", "bottom")


def printed(heading, name):
    return defined("extending.md", heading)[name]


@functools.cache
def scenes():
    """A few of the digits' scenes."""
    splits = {
        split: [digits.scene(split, i) for i in range(count)]
        for split, count in (("train", 24), ("validation", 8))
    }
    return data.Dataset("digits", digits.CLASSES, splits, "digits")


def make(method, *, seed=0, steps=STEPS):
    step, optimizer, norm = METHODS[method]()
    model = models.SimpleCNN(num_classes=11, width=4)
    if norm is not None:
        model = models.UNet(num_classes=11, widths=(4, 8), norm=norm)
    made = experiment(
        dataset_=scenes(), model=model, optimizer=optimizer, steps=steps, seed=seed
    )
    metric = metrics.semantic(digits.CLASSES)
    changed = {"augment": data.augment.horizontal_flip, "metric": metric, "step": step}
    return dataclasses.replace(made, **changed)


METHODS = {
    "mean teacher": lambda: (printed("Mean teacher", "mean_teacher"), SGD, None),
    "two optimizers": lambda: (printed("Two optimizers", "two_optimizers"), SGD, None),
    "sam": lambda: (printed("Sharpness-aware minimization", "sam"), SGD, None),
    "frozen encoder": lambda: (
        printed("Frozen layers and their statistics", "frozen_encoder"),
        SGD,
        models.layers.batch_norm,
    ),
    "reduce on plateau": lambda: (
        train.supervised_step,
        printed("Reduce the rate on plateaus", "plateau")(0.1),
        None,
    ),
    "lbfgs": lambda: (train.supervised_step, printed("L-BFGS", "lbfgs")(), None),
}
WITH_EXTRA = ("mean teacher", "two optimizers")
every_method = pytest.mark.parametrize("method", METHODS)


def last_state(made, run, step=STEPS):
    spec = train.data_spec(made.data)
    with train.open_checkpoints(made, run) as checkpoints:
        return checkpoints.restore(step, train.abstract_state_of(made, spec))


def assert_equal(one, other):
    """Asserts that all leaves of two states are equal bit for bit."""
    paths = jax.tree_util.tree_flatten_with_path(other)[0]
    for a, (path, b) in zip(jax.tree.leaves(one), paths, strict=True):
        if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        name = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=name)


@every_method
def test_it_trains_and_resume_is_exact(method, tmp_path, stop_at):  # noqa: F811
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train.train(make(method), run=uninterrupted, console=silent())
    losses = [r["loss"] for r in records(uninterrupted) if r["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]

    stop_at(STOP)
    with pytest.raises(train.Stopped):
        train.train(make(method), run=resumed, console=silent())
    stop_at(None)
    train.train(make(method), run=resumed, resume=True, console=silent())
    assert lines(resumed) == lines(uninterrupted)
    ended = last_state(make(method), uninterrupted)
    assert_equal(last_state(make(method), resumed), ended)
    assert (ended.extra is not None) == (method in WITH_EXTRA)


def begin(made):
    """Initial states and batches of experiments that differ in their seed."""
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(
                contextlib.closing(
                    e.data.train_batches(batch_size=8, seed=e.config.seed)
                )
            )
            for e in made
        ]
        batches = [[next(stream) for stream in streams] for _ in range(3)]
    init = train.initializer(made[0], train.batch_spec(batches[0][0]))
    return [init(jax.random.key(e.config.seed)) for e in made], batches


def single_run(made, devices=1, wrap=None):
    """State of one seed after three updates by a single-seed program."""
    (state,), batches = begin([made])
    mesh = sharding.make_mesh(jax.devices()[:devices])
    step = (
        sharding.jit_step(train.build_step(made), mesh) if wrap is None else wrap(made)
    )
    for (batch,) in batches:
        if wrap is not None:
            batch = train.split_for_pmap(batch, devices)
        state, scalars = step(state, batch)
    return jax.device_get(jax.block_until_ready((_bare(state), scalars)))


def _bare(state):
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


@every_method
def test_seeds_in_one_program_equal_single_runs(method):
    """Unrolled on one device, states are equal bit for bit."""
    made = [make(method, seed=seed) for seed in (0, 1)]
    states, batches = begin(made)
    mesh = multi_seed.mesh_of_seeds(2, jax.devices()[:1])
    form = multi_seed.unrolled(train.build_step(made[0]), mesh=mesh)
    groups = form.pack(states)
    for row in batches:
        groups, _ = form.update(groups, form.pack_batches(row))
    for place, one in enumerate(made):
        state = jax.device_get(_bare(form.unpack(groups, place)))
        assert_equal(state, single_run(one)[0])


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_train_seeds(method, tmp_path):
    """Each seed's folder equals that of a single run, including `extra`."""
    made = [make(method, seed=seed, steps=6) for seed in (0, 1)]
    train.train_seeds(made, run=tmp_path / "seeds", console=silent())
    train.train(made[1], run=tmp_path / "one", console=silent())
    ended = [
        last_state(made[1], run, 6)
        for run in (train.seed_folder(tmp_path / "seeds", 1), tmp_path / "one")
    ]
    # Seeds are split over devices, a single run splits its batch: rounding differs.
    assert relative_difference(*(_floats(state) for state in ended)) < 1e-4
    other = last_state(made[0], train.seed_folder(tmp_path / "seeds", 0), 6)
    assert relative_difference(_floats(other), _floats(ended[0])) > 1e-2


def _floats(state):
    return jax.device_get((state.params, state.model_state, state.extra))


@every_method
def test_four_devices_agree_with_one(method):
    one, four = single_run(make(method)), single_run(make(method), devices=4)
    assert relative_difference(_floats(four[0]), _floats(one[0])) < 1e-5
    np.testing.assert_allclose(four[1]["loss"], one[1]["loss"], rtol=1e-5)


@pytest.mark.parametrize("method", ["reduce on plateau", "lbfgs"])
def test_pmap_agrees_with_jit(method):
    """The optimizer's `value` and `value_fn` cover the images of all devices."""

    def wrap(made):
        return train.pmap_step(train.supervised_step(made, axis_name=train.AXIS))

    one, mapped = (
        single_run(make(method)),
        single_run(make(method), devices=4, wrap=wrap),
    )
    assert relative_difference(_floats(mapped[0]), _floats(one[0])) < 1e-5
    np.testing.assert_allclose(mapped[1]["loss"], one[1]["loss"], rtol=1e-5)


def test_a_frozen_encoder_does_not_change():
    made = make("frozen encoder")
    (first,), _ = begin([made])
    last = single_run(made)[0]
    for name in ENCODER:
        for tree in ("params", "batch_stats"):
            assert_equal(_part(last, tree, name), _part(first, tree, name))
    moved = relative_difference(last.params["head"], first.params["head"])
    assert moved > 1e-3
    stats = (_part(state, "batch_stats", "up0") for state in (last, first))
    assert relative_difference(*stats) > 1e-3


def _part(state, tree, name):
    return ({"params": state.params} | state.model_state)[tree][name]
