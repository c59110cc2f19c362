"""End-to-end training on small scenes: files of the run folder, and ways to stop."""

import io
import json
import logging
import os
import signal

import jax
import numpy as np
import optax
import pytest
from rich.console import Console

from segjax import data, train
from tests.scenes import CLASSES, dataset, examples, experiment


def silent():
    return Console(file=io.StringIO(), width=100)


def records(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "scenes"
    console = silent()
    result = train.train(
        experiment(steps=60, eval_every=20), run=run, console=console, flags={"a": 1}
    )
    return run, result, console.file.getvalue()


def test_it_learns(finished):
    _, result, _ = finished
    assert result["metrics"]["mean_iou"] > 0.8
    assert result["split"] == "test"


def test_run_folder(finished):
    run, result, _ = finished
    assert json.loads((run / "result.json").read_text()) == result
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["flags"] == {"a": 1}
    assert manifest["data"]["examples"] == {"train": 24, "validation": 10, "test": 6}
    assert {"jax", "flax", "numpy"} <= manifest["versions"].keys()
    steps = [r["step"] for r in records(run) if r["kind"] == "train"]
    assert steps == list(range(4, 61, 4))
    splits = [(r["step"], r["split"]) for r in records(run) if r["kind"] == "eval"]
    assert splits[:3] == [(20, "validation"), (40, "validation"), (60, "validation")]
    assert splits[3][1] == "test"
    assert list((run / "tensorboard").iterdir())


def test_lines_without_a_terminal(finished):
    lines = finished[2].splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("Epoch 6.67/20  loss 0.")
    assert "accuracy" in lines[0]
    assert "mean IoU 0." in lines[0]
    assert lines[3].startswith("Test  accuracy")


def test_one_compilation_for_all_image_sizes(tmp_path, caplog):
    """Images of several sizes, short epochs and evaluations use one compiled step."""
    mixed = [
        *examples(7, size=(16, 16)),
        *examples(4, size=(40, 24), seed=8),
        *examples(2, size=(9, 33), seed=9),
    ]
    splits = {"train": mixed, "validation": mixed}
    scenes = data.Dataset("mixed", CLASSES, splits, "")
    pipeline = data.Pipeline(dataset=scenes, size=16, multiple=16)
    made = experiment(steps=9, eval_every=3, batch_size=4)
    made = type(made)(**(vars(made) | {"data": pipeline}))
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train.train(made, run=tmp_path / "run", console=silent())
    messages = [r.getMessage() for r in caplog.records]
    steps = [m for m in messages if m.startswith("Compiling jit(train_step)")]
    assert len(steps) == 1, messages


def test_two_runs_of_one_seed_are_equal_and_other_seeds_differ(tmp_path):
    runs = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train.train(experiment(seed=seed), run=tmp_path / name, console=silent())
        runs[name] = [
            {k: v for k, v in r.items() if k != "images_per_second"}
            for r in records(tmp_path / name)
        ]
    assert runs["a"] == runs["b"]
    assert runs["a"] != runs["c"]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = train.train(experiment(), run=tmp_path / "whole", console=silent())

    made = experiment()
    train.train(experiment(steps=6), run=tmp_path / "parts", console=silent())
    resumed = train.train(made, run=tmp_path / "parts", resume=True, console=silent())
    assert resumed["metrics"] == whole["metrics"]
    with (
        train.Checkpoints(tmp_path / "whole/checkpoints", monitor="mean_iou") as a,
        train.Checkpoints(tmp_path / "parts/checkpoints", monitor="mean_iou") as b,
    ):
        like = train.abstract_state(made.model, made.optimizer, image_shape=(16, 16, 3))
        one, two = a.restore(12, like), b.restore(12, like)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    jax.tree.map(np.testing.assert_array_equal, one.opt_state, two.opt_state)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    made = experiment(optimizer=optax.sgd(1e20), steps=12)
    with pytest.raises(train.NonFiniteError, match=r"at step \d+\. The last good"):
        train.train(made, run=tmp_path / "run", console=silent())
    with train.Checkpoints(tmp_path / "run/checkpoints", monitor="mean_iou") as kept:
        like = train.abstract_state(made.model, made.optimizer, image_shape=(16, 16, 3))
        state = kept.restore(kept.last, like)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert not (tmp_path / "run/result.json").exists()


def test_a_signal_saves_and_stops(tmp_path):
    class SignalAt5(list):
        """A training split that interrupts its own process when read."""

        reads = 0

        def __getitem__(self, i):
            type(self).reads += 1
            if self.reads == 40:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(i)

    scenes = dataset()
    scenes = data.Dataset(
        scenes.name,
        scenes.classes,
        dict(scenes.splits) | {"train": SignalAt5(scenes.splits["train"])},
        "",
    )
    made = experiment(steps=400, eval_every=200, dataset_=scenes)
    pipeline = data.Pipeline(dataset=scenes, multiple=16, cache_bytes=0)
    made = type(made)(**(vars(made) | {"data": pipeline}))
    with pytest.raises(train.Stopped) as stopped:
        train.train(made, run=tmp_path / "run", console=silent())
    assert stopped.value.signum == signal.SIGTERM
    assert 0 < stopped.value.step < 400
    with train.Checkpoints(tmp_path / "run/checkpoints", monitor="mean_iou") as kept:
        assert kept.last == stopped.value.step


def test_run_folder_messages(tmp_path, finished):
    run = finished[0]
    with pytest.raises(ValueError, match=r"has a run already.*--resume"):
        train.train(experiment(), run=run, console=silent())
    with pytest.raises(ValueError, match="has none"):
        train.train(experiment(), run=tmp_path / "none", resume=True, console=silent())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty"):
        train.train(experiment(), run=tmp_path / "full", console=silent())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="needs a folder"):
        train.train(experiment(), run=tmp_path / "file", console=silent())


def test_config_messages(tmp_path):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train.TrainConfig(steps=0, batch_size=4)
    with pytest.raises(ValueError, match="over 4 devices, got 6"):
        train.train(experiment(batch_size=6), run=tmp_path / "run", console=silent())
    bad = experiment(monitor="mean_oui")
    assert bad.config.monitor == "mean_oui"
