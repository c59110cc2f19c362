"""Digests of the first steps: what changes them, what does not, what is recorded."""

import contextlib
import dataclasses
import io
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from segjax import data, losses, models, ops, train
from segjax.compiler import compiler_options
from segjax.train import experiment as experiment_parts
from segjax.train import reproducibility, sharding
from tests.scenes import Around, dataset, experiment

STREAMS = ("initialization", "data", "augmentation", "arithmetic")


def fit(folder, made, **kwargs):
    train.train(made, run=folder, console=Console(file=io.StringIO()), **kwargs)
    return json.loads((folder / "run.json").read_text())


def inverted():
    """The scenes with their training images inverted."""
    scenes = dataset()
    turned = [e | {"image": 255 - e["image"]} for e in scenes.splits["train"]]
    return dataclasses.replace(scenes, splits={**scenes.splits, "train": turned})


def lowered(made):
    """The step of an experiment, as passed to XLA."""
    batch = next(made.data.train_batches(batch_size=made.config.batch_size, seed=0))
    state = train.init_state(
        made.model, made.optimizer, seed=0, image_shape=batch["image"].shape[1:]
    )
    return sharding.jit_step(experiment_parts.build_step(made)).lower(state, batch)


def host(made, count):
    """The first batches that training reads."""
    with contextlib.closing(experiment_parts.host_batches(made, 0)) as batches:
        return list(itertools.islice(batches, count))


@pytest.fixture(scope="module")
def mirrored():
    return experiment(steps=7, eval_every=7, augment=data.augment.horizontal_flip)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, mirrored):
    run = tmp_path_factory.mktemp("runs") / "run"
    return run, fit(run, mirrored)


def test_five_updates_of_each_stream(trained):
    found = trained[1]["digests"]
    assert found["steps"] == 5
    for stream in ("data", "augmentation", "arithmetic"):
        assert len({json.dumps(d) for d in found[stream]}) == 5
    assert len(found["initialization"]) == len(found["program"]) == 16


def test_digests_equal_those_computed_independently(trained, mirrored):
    """Computes each stream again, independently of the step and its metrics."""
    found = trained[1]["digests"]
    batches = host(mirrored, 2)
    assert [reproducibility.batch_digest(b) for b in batches] == found["data"][:2]
    state = train.init_state(
        mirrored.model, mirrored.optimizer, seed=0, image_shape=(16, 16, 3)
    )
    assert reproducibility.state_digest(state) == found["initialization"]
    step = sharding.jit_step(experiment_parts.build_step(mirrored))
    start = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
    program = step.lower(start, batches[0])
    step = program.compile(compiler_options=compiler_options())
    after, scalars = step(jax.tree.map(jnp.copy, start), batches[0])
    assert float(scalars["loss"]) == found["arithmetic"][0]["loss"]
    stored = f"{int(ops.digest(after.params)):08x}"
    assert stored == found["arithmetic"][0]["parameters"]
    # The model's input: the augmented batch.
    key = jax.random.split(jax.random.fold_in(state.key, 0))[0]
    batch = train.augmented(mirrored.augment, key, mirrored.forward.prepare(batches[0]))
    rows = [ops.digest(jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(8)]
    total = sum(int(row) for row in rows) % 2**32
    assert f"{total:08x}" == found["augmentation"][0]


def test_a_replay_has_equal_digests(trained, mirrored):
    assert train.replay(mirrored, steps=5) == trained[1]["digests"]
    found = train.replay(mirrored, steps=2)
    assert found["steps"] == 2
    assert train.differences(trained[1]["digests"], found) == []


def test_a_replay_by_one_process_of_a_run_by_two(mirrored):
    """The replay digests the batches of the first of two processes."""
    config = mirrored.config
    share = mirrored.data.train_batches(
        batch_size=config.batch_size, seed=0, process_index=0, process_count=2
    )
    with contextlib.closing(share):
        first = [reproducibility.batch_digest(next(share)) for _ in range(2)]
    alone = train.replay(mirrored, steps=2)
    found = train.replay(mirrored, steps=2, processes=2)
    assert found["data"] == first != alone["data"]
    assert found | {"data": alone["data"]} == alone


@pytest.mark.slow
def test_workers_do_not_change_the_data(trained, mirrored):
    pipeline = dataclasses.replace(mirrored.data, num_workers=2)
    made = dataclasses.replace(mirrored, data=pipeline)
    found = [reproducibility.batch_digest(b) for b in host(made, 5)]
    assert found == trained[1]["digests"]["data"]


@pytest.mark.parametrize(
    ("change", "stream"),
    [
        ({"config": {"seed": 1}}, "initialization"),
        ({"model": models.SimpleCNN(num_classes=3, width=8)}, "initialization"),
        ({"data": data.Pipeline(dataset=inverted(), multiple=16)}, "data"),
        ({"augment": None}, "augmentation"),
        ({"optimizer": optax.adam(1.001e-2)}, "arithmetic"),
        ({"objective": losses.semantic(d=(1.0, losses.soft_dice))}, "arithmetic"),
    ],
    ids=["seed", "model", "data", "augment", "optimizer", "objective"],
)
def test_the_first_stream_that_differs(trained, mirrored, change, stream):
    if "config" in change:
        change = {"config": dataclasses.replace(mirrored.config, **change["config"])}
    made = dataclasses.replace(mirrored, **change)
    found = train.differences(trained[1]["digests"], train.replay(made, steps=2))
    assert found[0].stream == stream
    assert found[0].step == (None if stream == "initialization" else 1)


@pytest.mark.slow
def test_the_augmentation_digest_does_not_depend_on_model_and_loss():
    """XLA fuses them into one program; batches are digested by a separate one."""
    several = data.augment.compose(
        data.augment.rotate(), data.augment.elastic(), data.augment.color_jitter(),
        data.augment.gaussian_noise(), data.augment.gaussian_blur(),
    )  # fmt: skip
    one = experiment(augment=several)
    other = dataclasses.replace(
        one,
        model=models.UNet(num_classes=3, widths=(4, 8)),
        objective=losses.semantic(d=(1.0, losses.soft_dice)),
    )
    found = [train.replay(made, steps=3) for made in (one, other)]
    assert found[0]["program"] != found[1]["program"]
    assert found[0]["augmentation"] == found[1]["augmentation"]


@pytest.mark.parametrize("stream", STREAMS[1:])
def test_the_step_of_a_difference(trained, stream):
    recorded = trained[1]["digests"]
    other = json.loads(json.dumps(recorded))
    if stream == "arithmetic":
        other[stream][3]["gradients"] = "00000000"
    else:
        other[stream][3] = "00000000"
    what = "gradients" if stream == "arithmetic" else "batch"
    assert train.differences(recorded, other) == [train.Difference(stream, 4, what)]


def test_any_bit_of_a_batch_changes_its_digest(batch):
    before = reproducibility.batch_digest(batch)
    for name in batch:
        x = batch[name].copy()
        x.reshape(-1).view(np.uint8)[-1] ^= 1
        assert reproducibility.batch_digest(batch | {name: x}) != before
    assert reproducibility.batch_digest(dict(reversed(batch.items()))) == before
    other = batch | {"image": batch["image"].reshape(8, 8, 32, 3)}
    assert reproducibility.batch_digest(other) != before
    other = batch | {"weight": batch["weight"].view(np.int32)}
    assert reproducibility.batch_digest(other) != before


def test_parameters_collections_and_key_are_the_initialization(rng):
    trees = [{"a": rng.normal(size=(2, 3)).astype(np.float32)} for _ in range(3)]
    state = train.TrainState(jnp.zeros((), jnp.int32), *trees, jax.random.key(0))
    before = reproducibility.state_digest(state)
    nudged = [
        dataclasses.replace(state, key=jax.random.key(9)),
        dataclasses.replace(state, params=_nudge(state.params)),
        dataclasses.replace(state, model_state=_nudge(state.model_state)),
    ]
    found = {reproducibility.state_digest(other) for other in nudged}
    assert len(found | {before}) == 4
    again = dataclasses.replace(state, opt_state=_nudge(state.opt_state))
    assert reproducibility.state_digest(again) == before


def _nudge(tree):
    """Flips the last bit of the tree's last element."""
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    last = np.array(leaves[-1])
    last.reshape(-1).view(np.int32)[-1] ^= 1
    return jax.tree.unflatten(structure, [*leaves[:-1], last])


def test_the_program_digest_does_not_depend_on_the_location_of_the_code(tmp_path):
    """The same augmentation from two files, at different lines, is the same program."""
    source = "def turned(key, example):\n    return example | {'image': %s}\n"
    found = []
    for place, (name, body) in enumerate(
        [
            ("a", "-example['image']"),
            ("b", "-example['image']"),
            ("c", "example['image'] * 2"),
        ]
    ):
        path = tmp_path / f"{name}.py"
        path.write_text("\n" * 7 * place + source % body)
        names = {}
        exec(compile(path.read_text(), str(path), "exec"), names)
        found.append(
            reproducibility.program_digest(lowered(experiment(augment=names["turned"])))
        )
    assert found[0] == found[1] != found[2]
    text = lowered(experiment()).as_text()
    assert ".py" not in text
    assert "loc(" not in text


def test_a_run_of_fewer_updates_has_fewer_digests(tmp_path):
    found = fit(tmp_path / "run", experiment(steps=3, eval_every=3, log_every=1))
    assert found["digests"]["steps"] == 3
    assert len(found["digests"]["data"]) == 3


def test_a_resume_does_not_change_digests(tmp_path):
    run = tmp_path / "run"
    short = fit(run, experiment(steps=3, eval_every=3))
    made = experiment(steps=9, eval_every=3)
    resumed = fit(run, made, resume=True, flags={"steps": 9})
    assert resumed["digests"] == short["digests"]
    assert resumed["digests"]["steps"] == 3
    assert [r["step"] for r in resumed["resumes"]] == [3]
    assert resumed["resumes"][0]["flags"] == {"steps": 9}
    assert resumed | {"resumes": []} == short


def test_a_resume_from_step_0_records_digests(tmp_path):
    """A run that was killed before its first line of the log has no digests."""
    run = tmp_path / "run"
    made = experiment()
    broken = dataclasses.replace(made, data=Breaks(made.data))
    with pytest.raises(FloatingPointError):
        fit(run, broken)
    assert "digests" not in json.loads((run / "run.json").read_text())
    assert fit(run, made, resume=True)["digests"]["steps"] == 5


class Breaks(Around):
    """Data whose stream ends in an error after two batches."""

    def train_batches(self, **kwargs):
        yield from itertools.islice(self.inner.train_batches(**kwargs), 2)
        raise FloatingPointError


def test_a_recorder_of_no_steps_records_nothing(batch):
    found = reproducibility.DigestRecorder()
    assert list(found.batches([batch])) == [batch]
    found.rows([{"loss": 1.0}])
    assert found.found == {
        "steps": 0, "data": [], "augmentation": [], "arithmetic": []
    }  # fmt: skip


def test_a_loss_that_is_not_finite_is_null(tmp_path):
    row = {"loss": np.float32(np.nan), "digest/batch": 1}
    row |= {"digest/gradients": 2, "digest/params": 3}
    found = reproducibility.DigestRecorder(steps=1)
    found.rows([row, row])
    assert found.found["arithmetic"] == [
        {"loss": None, "gradients": "00000002", "parameters": "00000003"}
    ]
