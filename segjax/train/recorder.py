"""Logging, evaluation and saving of one run, called after every update."""

import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import model_file, multihost
from segjax.errors import UserError
from segjax.run_folder.errors import saving
from segjax.train.checkpoint import Checkpoints
from segjax.train.evaluate import Evaluator
from segjax.train.experiment import (
    Experiment,
    OnStep,
    build_step,
    evaluation_split,
    final_split,
)
from segjax.train.metric_lines import metrics_line, split_title
from segjax.train.metric_writer import MetricWriter
from segjax.train.reproducibility import DigestRecorder
from segjax.train.split_evaluator import SplitEvaluator, Stop
from segjax.train.state import TrainState
from segjax.typing import Array, Batch

SaveModel = Callable[[TrainState, int, Mapping[str, Any]], None]
"""`(state, step, image)`: writes the model of a run; `image` describes its input."""


class NonFiniteError(ArithmeticError):
    """The loss or its gradient became infinite or NaN.

    Attributes:
        step: The number of the update.
    """

    def __init__(self, step: int, name: str, value: float, kept: int | None):
        super().__init__(
            f"{name} became {value} at step {step}. The last good checkpoint is that "
            f"of step {kept}. Lower the learning rate or clip the gradient."
        )
        self.step = step


class SeedDivergedError(NonFiniteError):
    """The loss or the gradient of one of several seeds became infinite or NaN.

    Attributes:
        seed: The seed of the run.
        step: The number of the update.
    """

    def __init__(self, seed: int, error: NonFiniteError):
        ArithmeticError.__init__(self, f"Seed {seed}: {error}")
        self.seed, self.step = seed, error.step


class Recorder:
    """Logs, evaluates and saves one run; called after every update.

    Values that are not in the log yet are saved in each checkpoint (`progress`), so
    that a run that was stopped between two lines of its log writes the same lines
    after a resume.

    Attributes:
        stop: Called before each batch of an evaluation; returns a signal or None.
        stop_reason: The reason of a callback to stop the run; None while it continues.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        log: MetricWriter,
        evaluate: Evaluator,
        digests: DigestRecorder | None = None,
        save_model: SaveModel | None = None,
        begin_run: Callable[[], None] | None = None,
    ):
        """Creates a recorder before the first step.

        Args:
            experiment: The experiment.
            checkpoints: The checkpoints of the run.
            log: The metric writer of the run.
            evaluate: The result of `make_evaluator`.
            digests: Records digests of the first updates, for `segjax verify`.
            save_model: Writes the model of the best state; see `model_writer`.
            begin_run: Writes or extends `run.json`; called after all checks, before
                the first update.
        """
        self.digests = DigestRecorder() if digests is None else digests
        self.experiment = experiment
        self.config, self.data = experiment.config, experiment.data
        self.checkpoints, self.log = checkpoints, log
        self._splits = SplitEvaluator(experiment, evaluate, log)
        self.save_model, self._begin_run = save_model, begin_run
        examples = self.data.num_examples("train")
        self.epoch_steps = max(1, -(-examples // self.config.batch_size))
        self.stop: Stop = lambda: None
        self.stop_reason: str | None = None
        self._pending: list[Mapping[str, Array]] = []  # On the device.
        self._rows: list[dict[str, float]] = []  # Since the last line of the log.
        self._losses: list[float] = []  # Since the last evaluation.
        self._skipped = 0
        self._interrupted = False  # A signal stopped the evaluation of the first step.
        self._saved_model: int | None = None
        self._began, self._earlier_seconds = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Time spent on the run, also before it was resumed, up to a checkpoint."""
        return round(self._earlier_seconds + time.perf_counter() - self._began, 1)

    def restore(self, state: TrainState, first: int) -> TrainState:
        """Returns the state of checkpoint `first`, or the given one in a new run.

        Args:
            state: The initial state, on its devices.
            first: The step to resume from; 0 in a new run.

        Raises:
            ValueError: If the checkpoint is of another model or optimizer.
        """
        self.digests.state(state)
        last = self.checkpoints.last
        if last is not None and last < first and self.checkpoints.ended:
            first = last  # A callback stopped this seed; others continued.
        if first not in self.checkpoints.steps:
            return state
        progress = self.checkpoints.progress(first)
        self._rows = progress.get("rows", [])
        self._losses = progress.get("losses", [])
        self._skipped = progress.get("skipped", 0)
        self._interrupted = progress.get("interrupted", False)
        self.stop_reason = progress.get("stop_reason")
        self._earlier_seconds = float(progress.get("seconds", 0.0))
        return self.checkpoints.restore(first, state)

    def check_evaluation(self, state: TrainState) -> None:
        """Evaluates the largest images before training.

        So a wrong `monitor`, and images that are too large for the memory, are noticed
        at once.

        Raises:
            ValueError: If the evaluation has no such metric, or memory is not enough.
        """
        self._splits.check(state)

    def begin(self, state: TrainState) -> None:
        """Writes `run.json`, opens the log and, in a new run, saves the first state.

        Nothing in the run folder is changed before.

        Args:
            state: The result of `restore`.
        """
        if self._begin_run is not None:
            self._begin_run()
        self.log.open()
        if not self.checkpoints.steps:
            self.checkpoints.save(state, {})

    def note_images(self, batch: Batch) -> None:
        """Records channels, dtype and value range of a host batch for `model.json`."""
        self._splits.note_images(batch)

    def finish_evaluation(self, state: TrainState, first: int) -> None:
        """Repeats the evaluation of step `first` if a signal interrupted it."""
        if self._interrupted:
            self.evaluate_and_save(state, first)

    def after_step(
        self,
        state: Callable[[], TrainState],
        metrics: Mapping[str, Array],
        number: int,
    ) -> None:
        """Logs, evaluates and saves if update `number` requires it.

        Args:
            state: Returns the state after the update.
            metrics: The metrics of the update, on the device.
            number: The number of the update.

        Raises:
            EvaluationStoppedError: If a signal stopped an evaluation.
            NonFiniteError: If more losses or gradients than `skip_nonfinite` were not
                finite.
        """
        self._pending.append(metrics)
        self.log.set_progress(number)
        if number % self.config.log_every == 0 or self.is_due(number):
            self._collect(number)
            self._write_line(number)
        if self.is_due(number):
            self.evaluate_and_save(state(), number)
        elif self.stop_reason:
            self.save(state(), number)

    def is_due(self, number: int) -> bool:
        """Returns whether an evaluation and a checkpoint follow update `number`."""
        every = self.config.eval_every or self.epoch_steps
        return number % every == 0 or number == self.config.steps

    def evaluate_and_save(self, state: TrainState, number: int) -> None:
        """Evaluates and saves the state after update `number`."""
        split, monitor = evaluation_split(self.data.splits), self.config.monitor
        metrics = self._splits.evaluate(state, split, stop=self.stop)
        epoch = number / self.epoch_steps
        self.log.write_eval(number, metrics, split=split, epoch=epoch)
        loss = _means([{"loss": x} for x in self._losses])["loss"]
        self._losses.clear()
        self._call_on_eval()
        progress, again = self._progress(), self._interrupted
        self._interrupted = False
        best = self.checkpoints.save(state, metrics, progress=progress, replace=again)
        if best:
            self._save_model(state, number)
        epochs = self.config.steps / self.epoch_steps
        line = metrics_line(metrics, monitor=monitor)
        of = "  of the images of training" if split == "train" else ""
        self.log.print_line(
            f"Epoch {epoch:.3g}/{epochs:.3g}  loss {loss:.3f}  {line}{of}"
        )
        self.log.start_clock(number)

    def save(
        self, state: TrainState, number: int, *, interrupted: bool = False
    ) -> None:
        """Saves without an evaluation, when a run is stopped.

        Args:
            state: The state after update `number`.
            number: The number of the update.
            interrupted: Whether an evaluation of this state was stopped.

        Raises:
            NonFiniteError: As `after_step`; nothing is saved then.
        """
        self._collect(number)
        progress = self._progress() | ({"interrupted": True} if interrupted else {})
        self.checkpoints.save(state, {}, progress=progress)

    def evaluate_best(self, state: TrainState) -> dict[str, Any]:
        """Evaluates the best checkpoint on the final split; returns `result.json`."""
        reached, best = int(state.step), self.checkpoints.best
        if best is not None and best != reached:
            state = self.checkpoints.restore(best, state)
        step, split = int(state.step), final_split(self.data.splits)
        if self._saved_model != step:
            self._save_model(state, step)
        metrics = self._splits.evaluate(state, split, stop=self.stop)
        epoch = step / self.epoch_steps
        self.log.write_eval(step, metrics, split=split, epoch=epoch, final=True)
        line = metrics_line(metrics, monitor=self.config.monitor)
        title = split_title(split)
        self.log.print_line(
            f"{title[0].upper()}{title[1:]}  {line}  (best checkpoint: step {step})"
        )
        stopped = {"stopped": {"step": reached, "reason": self.stop_reason}}
        return {
            "metrics": metrics,
            "split": split,
            "steps": self.config.steps,
            "best_step": step,
            "seed": self.config.seed,
        } | (stopped if self.stop_reason else {})

    def _save_model(self, state: TrainState, step: int) -> None:
        if self.save_model is not None:
            self.save_model(state, step, self._splits.image)
            self._saved_model = step

    def _call_on_eval(self) -> None:
        if (on_eval := self.experiment.on_eval) is None:
            return
        # Only the first process has the records.
        first = jax.process_index() == 0
        reason = on_eval(self.log.evaluations) if first else None
        self._stop(multihost.broadcast_from_first(reason))

    def _call_on_step(
        self, on_step: OnStep, rows: Sequence[Mapping[str, float]], number: int
    ) -> None:
        reason = None
        if jax.process_index() == 0:
            for step, row in enumerate(rows, number - len(rows) + 1):
                said = on_step(step, row)
                reason = reason or said
        self._stop(multihost.broadcast_from_first(reason))

    def _stop(self, reason: Any) -> None:
        if not isinstance(reason, str | None):
            raise UserError(
                f"A callback needs to return None or a reason to stop, got {reason!r}."
            )
        if reason and self.stop_reason is None:
            self.stop_reason = reason
            self.log.print_line(f"Stopping: {reason}")

    def _progress(self) -> dict[str, Any]:
        found: dict[str, Any] = {"rows": self._rows, "losses": self._losses}
        found |= {"skipped": self._skipped, "seconds": self.seconds}
        return found | ({"stop_reason": self.stop_reason} if self.stop_reason else {})

    def _collect(self, number: int) -> None:
        """Fetches and checks the metrics of the updates up to `number`."""
        rows = jax.device_get(self._pending)
        self._pending.clear()
        self.digests.rows(rows)
        for step, row in enumerate(rows, number - len(rows) + 1):
            metrics = {
                k: float(v) for k, v in row.items() if not k.startswith("digest/")
            }
            self._check(step, metrics)
            self._rows.append(metrics)
            self._losses.append(metrics["loss"])
        if (on_step := self.experiment.on_step) is not None:
            self._call_on_step(
                on_step, self._rows[-len(rows) :] if rows else [], number
            )

    def _check(self, step: int, metrics: Mapping[str, float]) -> None:
        for name in ("loss", "grad_norm"):
            if math.isfinite(metrics.get(name, 0.0)):
                continue
            self._skipped += 1
            if self._skipped > self.config.skip_nonfinite:
                kept = self.checkpoints.last
                raise NonFiniteError(step, name, metrics[name], kept)
            return

    def _write_line(self, number: int) -> None:
        """Logs means since the last line, without skipped updates."""
        means = _means(self._rows)
        if self._skipped:
            means["skipped"] = float(self._skipped)
        self._rows.clear()
        self.log.write_train(number, means)


def model_writer(experiment: Experiment, run: pathlib.Path) -> SaveModel:
    """Returns a function that writes `RUN/model.json` and its variables."""
    data, forward = experiment.data, experiment.forward
    variables = build_step(experiment).variables

    def save(state: TrainState, step: int, image: Mapping[str, Any]) -> None:
        facts = {
            "classes": list(data.classes),
            "image": dict(image),
            "task": experiment.task or getattr(experiment.model, "task", "semantic"),
            "multiple": getattr(data, "multiple", 32),
            "max_shapes": getattr(data, "max_shapes", 8),
            "step": step,
        }
        with saving(run / "model.json"):
            model_file.write(run, forward, jax.device_get(variables(state)), facts)

    return save


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns means over the finite updates, NaN if there are none.

    The learning rate is that of the last update.
    """
    names = [k for k in ("loss", "grad_norm") if k in rows[0]]
    finite = [row for row in rows if all(math.isfinite(row[k]) for k in names)]
    means = {
        k: float(np.mean([row[k] for row in finite])) if finite else math.nan
        for k in rows[0]
    }
    return means | {k: rows[-1][k] for k in means if k.startswith("learning_rate")}
