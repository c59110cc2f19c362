"""Checks before the first step, callbacks that stop a run, and status lines."""

import dataclasses
import json
import signal
import time

import jax
import numpy as np
import optax
import pytest

from segjax import losses, train
from segjax.train.metric_writer import Heartbeat
from tests.scenes import Around, experiment
from tests.train.test_loop import records, silent
from tests.train.test_recorder import lines


def changed(made, **parts):
    return dataclasses.replace(made, **parts)


def stop_at(step):
    """Returns an `on_eval` that stops the run at a step."""

    def on_eval(evaluations):
        last = evaluations[-1]
        assert {"split", "mean_iou", "loss"} <= last.keys()
        return f"reached {step}" if last["step"] >= step else None

    return on_eval


class Counts(Around):
    """Data that counts the batches read from it."""

    read = 0

    def train_batches(self, **options):
        for batch in self.inner.train_batches(**options):
            self.read += 1
            yield batch


def test_a_misspelled_monitor_is_an_error_before_the_first_step(tmp_path):
    made = experiment(monitor="mean_oui", steps=400)
    made = changed(made, data=Counts(made.data))
    with pytest.raises(ValueError, match=r"monitor needs one of .*mean_iou.*mean_oui"):
        train.train(made, run=tmp_path / "run", console=silent())
    assert made.data.read <= 4  # Prefetched.


def test_a_monitored_loss_is_minimized(tmp_path):
    with pytest.raises(ValueError, match=r"keep the worst checkpoint. Give mode='min'"):
        experiment(monitor="loss")
    made = experiment(monitor="loss", mode="min", steps=24, eval_every=4)
    result = train.train(made, run=tmp_path / "run", console=silent())
    found = [r for r in records(tmp_path / "run") if r["kind"] == "eval"]
    best = min(found[:-1], key=lambda r: (r["loss"], -r["step"]))
    assert result["best_step"] == best["step"]
    with train.open_checkpoints(made, tmp_path / "run") as kept:
        assert kept.best == best["step"]


def test_labels_out_of_range_are_an_error_before_the_first_step(tmp_path):
    class Wrong(Around):
        def train_batches(self, **options):
            for batch in self.inner.train_batches(**options):
                label = batch["label"].copy()
                label[2, 0, 0] = 7
                yield batch | {"label": label}

    made = experiment()
    made = changed(made, data=Wrong(made.data))
    with pytest.raises(ValueError, match=r"ids from 0 to 2, .* got 7 in example 2"):
        train.train(made, run=tmp_path / "run", console=silent())


def test_on_eval_may_stop_the_run_and_a_resume_does_not_continue_it(tmp_path):
    made = changed(experiment(steps=24), on_eval=stop_at(12))
    console = silent()
    result = train.train(made, run=tmp_path / "run", console=console)
    assert result["stopped"] == {"step": 12, "reason": "reached 12"}
    assert "Stopping: reached 12" in console.file.getvalue()
    before = lines(tmp_path / "run")
    assert max(r["step"] for r in before) == 12
    again = train.train(made, run=tmp_path / "run", resume=True, console=silent())
    assert lines(tmp_path / "run") == before
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_on_step_may_stop_the_run(tmp_path):
    seen = []

    def on_step(step, metrics):
        seen.append((step, set(metrics)))
        return "enough" if step == 6 else None

    made = changed(experiment(steps=24, eval_every=24), on_step=on_step)
    result = train.train(made, run=tmp_path / "run", console=silent())
    # Metrics reach the host with the lines of the log, every fourth update.
    assert result["stopped"] == {"step": 8, "reason": "enough"}
    assert [step for step, _ in seen] == list(range(1, 9))
    assert seen[0][1] == {"loss", "loss/ce", "grad_norm"}


def test_a_seed_that_stops_does_not_stop_the_others(tmp_path):
    def on_eval(evaluations):
        last = evaluations[-1]
        first = evaluations[0]["loss"]
        return "one of them" if last["step"] == 6 and first > threshold else None

    threshold = -1.0
    whole = [experiment(seed=seed) for seed in (0, 1)]
    train.train_seeds(whole, run=tmp_path / "whole", console=silent())
    losses_ = [
        json.loads(
            (tmp_path / f"whole/seed-{s}/metrics.jsonl").read_text().split("\n")[2]
        )
        for s in (0, 1)
    ]
    assert all(r["kind"] == "eval" and r["step"] == 6 for r in losses_)
    threshold = float(np.mean([r["loss"] for r in losses_]))
    ended = int(np.argmax([r["loss"] for r in losses_]))
    made = [changed(e, on_eval=on_eval) for e in whole]
    results = train.train_seeds(made, run=tmp_path / "run", console=silent())
    assert results[ended]["stopped"]["step"] == 6
    other = 1 - ended
    assert "stopped" not in results[other]
    assert lines(tmp_path / f"run/seed-{other}") == lines(
        tmp_path / f"whole/seed-{other}"
    )
    # A resume does not change the stopped seed and continues the other.
    longer = [
        changed(e, config=dataclasses.replace(e.config, steps=18), on_eval=on_eval)
        for e in whole
    ]
    before = lines(tmp_path / f"run/seed-{ended}")
    again = train.train_seeds(
        longer, run=tmp_path / "run", resume=True, console=silent()
    )
    assert again[ended]["stopped"]["step"] == 6
    assert again[other]["best_step"] in (6, 12, 18)
    assert lines(tmp_path / f"run/seed-{ended}") == before
    assert lines(tmp_path / f"run/seed-{other}")[-1]["final"]
    assert max(r["step"] for r in lines(tmp_path / f"run/seed-{other}")) == 18


def test_a_signal_stops_an_evaluation_and_resume_is_exact(
    tmp_path,
):
    class Signals(Around):
        """Sends SIGTERM while the first evaluation reads its second batch."""

        evaluations, batches = 0, 0

        def eval_batches(self, split, **options):
            self.evaluations += 1
            for number, batch in enumerate(self.inner.eval_batches(split, **options)):
                if self.evaluations == 1:
                    self.batches += 1
                    if number == 0:
                        signal.raise_signal(signal.SIGTERM)
                yield batch

    made = experiment(steps=12, batch_size=4)
    interrupted = changed(made, data=Signals(made.data))
    with pytest.raises(train.Stopped) as stopped:
        train.train(interrupted, run=tmp_path / "parts", console=silent())
    assert stopped.value.step == 6
    assert interrupted.data.batches == 1  # Of three.
    train.train(made, run=tmp_path / "parts", resume=True, console=silent())
    train.train(made, run=tmp_path / "whole", console=silent())
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    with train.open_checkpoints(made, tmp_path / "parts") as one:
        with train.open_checkpoints(made, tmp_path / "whole") as two:
            assert (one.steps, one.best) == (two.steps, two.best)


@pytest.mark.parametrize("part", ["objective", "augment", "optimizer", "metric"])
def test_seeds_whose_experiments_differ_are_refused(tmp_path, part):
    other = {
        "objective": losses.semantic(ce=(2.0, losses.cross_entropy)),
        "augment": lambda key, example: example | {"image": example["image"] * 2},
        "optimizer": optax.adam(2e-2),
        "metric": lambda outputs, batch: experiment().metric(-outputs, batch),
    }[part]
    what = "evaluation" if part == "metric" else "train step"
    made = [experiment(seed=0), changed(experiment(seed=1), **{part: other})]
    with pytest.raises(ValueError, match=f"the {what} of seed 1 is another program"):
        train.train_seeds(made, run=tmp_path / "run", console=silent())


def test_the_learning_rate_is_logged_if_the_optimizer_keeps_it(tmp_path):
    rate = optax.linear_schedule(0.1, 0.0, 12)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    made = experiment(optimizer=optimizer)
    train.train(made, run=tmp_path / "run", console=silent())
    found = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    assert [r["step"] for r in found] == [4, 6, 8, 12]
    for record in found:  # The rate of the line's last update.
        assert record["learning_rate"] == pytest.approx(float(rate(record["step"] - 1)))
    plain = train.learning_rates(optax.adam(rate).init({"w": jax.numpy.ones(2)}))
    assert plain == {}


def test_the_heartbeat_prints_the_status():
    said = []
    heart = Heartbeat(said.append, every=0.02)
    heart.text = "evaluating validation: 40/233 images"
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    heart.stop()
    count = len(said)
    assert said[-1] == "... evaluating validation: 40/233 images"
    time.sleep(0.06)
    assert len(said) == count


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda state, batch: state, r"return \(state, metrics\), got TrainState"),
        (lambda state, batch: (state, {"acc": 1.0}), "scalar `loss`, got only acc"),
        (lambda state, batch: (state, {"loss": np.ones(3)}), r"`loss`, got \[3\]"),
        (
            lambda state, batch: (state, {"loss": np.ones(()), "map": np.ones((2, 2))}),
            r"scalars, got map of shape \[2, 2\]",
        ),
    ],
)
def test_what_a_step_returns_is_checked(tmp_path, update, message):
    made = changed(experiment(), step=lambda experiment: update)
    with pytest.raises(ValueError, match=message):
        train.train(made, run=tmp_path / "run", console=silent())


def test_objectives_without_terms_and_reasons_that_are_no_text(tmp_path):
    made = changed(experiment(), objective=lambda outputs, batch: {})
    with pytest.raises(ValueError, match="at least one term in training, got none"):
        train.train(made, run=tmp_path / "run", console=silent())
    made = changed(experiment(), on_eval=lambda evaluations: True)
    with pytest.raises(ValueError, match="None or a reason to stop, got True"):
        train.train(made, run=tmp_path / "other", console=silent())
