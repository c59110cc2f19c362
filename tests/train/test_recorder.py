"""A resumed run writes the same lines as an uninterrupted one."""

import dataclasses
import signal

import jax
import numpy as np
import optax
import pytest

from segjax import train
from segjax.train.metric_writer import truncate_log
from tests.scenes import dataset, experiment
from tests.train.test_loop import records, silent


def lines(run):
    """Records without times."""
    return [
        {k: v for k, v in record.items() if k != "images_per_second"}
        for record in records(run)
    ]


@pytest.fixture
def stop_at(monkeypatch):
    """Makes this process send itself SIGTERM after a given update."""

    def arrange(step):
        done = train.Recorder.after_step

        def after_step(self, state, scalars, number):
            done(self, state, scalars, number)
            if number == step:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(train.Recorder, "after_step", after_step)

    with monkeypatch.context():
        yield arrange


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The run folder of an uninterrupted run."""
    run = tmp_path_factory.mktemp("record") / "uninterrupted"
    train.train(experiment(), run=run, console=silent())
    return run


@pytest.mark.parametrize("step", [5, 6, 8, 11])
def test_a_run_stopped_between_two_lines_continues_the_log_exactly(
    tmp_path, uninterrupted, stop_at, step
):
    """Lines are at steps 4, 8, 12 and evaluations at 6 and 12."""
    stop_at(step)
    with pytest.raises(train.Stopped):
        train.train(experiment(), run=tmp_path / "parts", console=silent())
    stop_at(None)
    train.train(experiment(), run=tmp_path / "parts", resume=True, console=silent())
    assert lines(tmp_path / "parts") == lines(uninterrupted)


def test_a_resume_with_more_steps_removes_the_final_evaluation(tmp_path):
    constant = optax.sgd(1e-2)  # A schedule would depend on the number of steps.
    short = experiment(steps=6, optimizer=constant)
    train.train(short, run=tmp_path / "parts", console=silent())
    assert lines(tmp_path / "parts")[-1]["final"]
    longer = experiment(optimizer=constant)
    train.train(longer, run=tmp_path / "parts", resume=True, console=silent())
    train.train(longer, run=tmp_path / "uninterrupted", console=silent())
    assert lines(tmp_path / "parts") == lines(tmp_path / "uninterrupted")


def test_truncate_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"kind": "train", "step": 4, "loss": 1.0}\n'
    path.write_text(
        kept + '{"kind": "train", "step": 8}\n{"step": 3, "final": true}\n{"ste'
    )
    truncate_log(path, 4)
    assert path.read_text() == kept
    before = path.stat().st_mtime_ns
    truncate_log(path, 4)
    assert path.stat().st_mtime_ns == before
    truncate_log(tmp_path / "none.jsonl", 4)
    assert not (tmp_path / "none.jsonl").exists()


class Poison:
    """An objective that is NaN for one example."""

    def __init__(self, objective, index):
        self.objective, self.index = objective, index

    def __call__(self, outputs, batch):
        bad = jax.numpy.any(batch["index"] == self.index)
        terms = self.objective(outputs, batch)
        return {k: jax.numpy.where(bad, np.nan, v) for k, v in terms.items()}


def poisoned(**config):
    """Example 19 of the stream, in the third batch of 8, makes its loss NaN."""
    made = experiment(**config)
    objective = Poison(made.objective, 19)
    return type(made)(**(vars(made) | {"objective": objective}))


def test_a_nonfinite_update_is_skipped_and_counted(tmp_path):
    result = train.train(
        poisoned(skip_nonfinite=1), run=tmp_path / "run", console=silent()
    )
    assert np.isfinite(result["metrics"]["mean_iou"])
    trained = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    assert [r.get("skipped") for r in trained] == [1.0] * len(trained)
    assert all(np.isfinite(r["loss"]) for r in trained)


def test_too_many_nonfinite_updates_stop_the_run(tmp_path):
    with pytest.raises(train.NonFiniteError, match="nan at step 3") as error:
        train.train(poisoned(), run=tmp_path / "run", console=silent())
    assert error.value.step == 3


def test_a_skipped_update_changes_only_the_step(batch, objective):
    from segjax import models

    model = models.UNet(num_classes=3, widths=(4, 8), norm=models.layers.batch_norm)
    optimizer = optax.adam(1e-2)
    state = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    bad = Poison(objective, 3)
    step = train.skip_nonfinite(
        train.make_train_step(train.make_forward(model), bad, optimizer)
    )
    new, scalars = jax.jit(step)(state, batch)
    assert not np.isfinite(scalars["loss"])
    assert int(new.step) == 1
    for part in ("params", "model_state", "opt_state"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(new, part), getattr(state, part)
        )
    fine = dict(batch) | {"index": batch["index"] + 100}
    new, _ = jax.jit(step)(state, fine)
    plain = train.make_train_step(train.make_forward(model), objective, optimizer)
    expected, _ = jax.jit(plain)(state, fine)
    for a, b in zip(
        jax.tree.leaves(new.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_images_too_large_for_the_memory_are_named_before_training(
    tmp_path, monkeypatch
):
    def evaluate(*_, **__):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 43000000000 bytes."
        )

    monkeypatch.setattr("segjax.train.run.evaluator", lambda *_: evaluate)
    with pytest.raises(ValueError, match=r"8 of the largest images .* 16x16 pixels"):
        train.train(experiment(), run=tmp_path / "run", console=silent())
    assert not (tmp_path / "run/run.json").exists()


def test_scores_of_the_training_images_are_called_so(tmp_path):
    only = dataset()
    only = dataclasses.replace(only, splits={"train": only.splits["train"]})
    console = silent()
    made = experiment(dataset_=only, steps=6)
    train.train(made, run=tmp_path / "run", console=console)
    *_, epoch, last = console.file.getvalue().splitlines()
    assert epoch.endswith("  of the images of training")
    assert last.startswith("Train (the images of training, no test)  accuracy")
