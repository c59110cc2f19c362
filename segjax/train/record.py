"""What one run writes while it trains: lines, evaluations, checkpoints, the model."""

import contextlib
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax.train import agree
from segjax.train.checkpoint import Checkpoints
from segjax.train.config import Experiment, OnStep
from segjax.train.digests import DigestRecorder
from segjax.train.evaluate import Evaluator
from segjax.train.log import RunLog, metrics_line
from segjax.train.state import TrainState
from segjax.typing import Array, Batch

Stop = Callable[[], int | None]
SaveModel = Callable[[TrainState, int, Mapping[str, Any]], None]
"""`(state, step, image)`: writes the model of a run; `image` is what `saw` noted."""


class NonFiniteError(ArithmeticError):
    """The loss or its gradient became infinite or NaN.

    Attributes:
        step: The update at which it was.
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
        seed: Which.
        step: The update at which it was.
    """

    def __init__(self, seed: int, error: NonFiniteError):
        ArithmeticError.__init__(self, f"Seed {seed}: {error}")
        self.seed, self.step = seed, error.step


class Recorder:
    """Logs, evaluates and saves one run; called after every update.

    What it has not yet written goes into each checkpoint (`progress`), so that a run
    that was stopped between two lines of its log goes on to write the same lines.

    Attributes:
        stop: Asked before each batch of an evaluation: the signal received, or None.
        stop_reason: Why a callback ended the run; None while it goes on.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        log: RunLog,
        evaluate: Evaluator,
        first_steps: DigestRecorder | None = None,
        save_model: SaveModel | None = None,
        begin_run: Callable[[], None] | None = None,
    ):
        """A recorder at the first step.

        Args:
            experiment: What is trained.
            checkpoints: Of the run.
            log: Of the run.
            evaluate: What `make_evaluator` returned.
            first_steps: What gathers the digests of the first updates, if anything.
            save_model: Writes the model of the best state, if anything.
            begin_run: Writes what the run folder says of the run or its resume, once
                all that is checked before training was found right.
        """
        self.first_steps = DigestRecorder() if first_steps is None else first_steps
        self.experiment = experiment
        self.config, self.data = experiment.config, experiment.data
        self.checkpoints, self.log, self.evaluate = checkpoints, log, evaluate
        self.save_model, self._begin_run = save_model, begin_run
        examples = self.data.num_examples("train")
        self.epoch_steps = max(1, -(-examples // self.config.batch_size))
        self.stop: Stop = lambda: None
        self.stop_reason: str | None = None
        self._pending: list[Mapping[str, Array]] = []  # On the device.
        self._rows: list[dict[str, float]] = []  # Since the last line of the log.
        self._losses: list[float] = []  # Since the last evaluation.
        self._skipped = 0
        self._interrupted = False  # A signal left the evaluation of `first` undone.
        self._saved_model: int | None = None
        self._image: dict[str, Any] = {}

    def start(self, state: TrainState, first: int) -> TrainState:
        """The state to begin with: that of checkpoint `first`, or the one given.

        Args:
            state: As the experiment begins, where it is to be.
            first: The step to go on from; 0 in a new run.

        Raises:
            ValueError: If the checkpoint is of another model or optimizer.
        """
        self.first_steps.state(state)
        last = self.checkpoints.last
        if last is not None and last < first and self.checkpoints.ended:
            first = last  # Other seeds went on.
        if first not in self.checkpoints.steps:
            return state
        progress = self.checkpoints.progress(first)
        self._rows = progress.get("rows", [])
        self._losses = progress.get("losses", [])
        self._skipped = progress.get("skipped", 0)
        self._interrupted = progress.get("interrupted", False)
        self.stop_reason = progress.get("stop_reason")
        return self.checkpoints.restore(first, state)

    def check_monitor(self, state: TrainState) -> None:
        """Evaluates one batch, so that a wrong `monitor` is found before training.

        Raises:
            ValueError: If evaluation gives no such metric.
        """
        self.log.doing("compiling the evaluation")
        split = evaluation_split(self.data.splits)
        batches = self._eval_batches(split)
        with contextlib.closing(batches):
            first = next(batches, None)
        metrics = {} if first is None else self.evaluate(state, iter([first]))
        if self.config.monitor not in metrics:
            names = ", ".join(sorted(metrics))
            raise ValueError(
                f"monitor needs one of {names}, got {self.config.monitor}."
            )

    def begin(self, state: TrainState, first: int) -> None:
        """Writes for the first time, when everything was checked.

        Args:
            state: What `start` returned; saved in a new run, so that there is something
                good to return to from the start.
            first: The step to go on from; 0 in a new run.
        """
        if self._begin_run is not None:
            self._begin_run()
        self.log.begin()
        if not self.checkpoints.steps:
            self.checkpoints.save(state, {})

    def saw(self, batch: Batch) -> None:
        """Notes what the images of a host batch are like, for the saved model."""
        image = np.asarray(batch["image"])[np.asarray(batch["weight"]) > 0]
        if image.size:
            low, high = float(image.min()), float(image.max())
            self._image = {
                "channels": image.shape[-1],
                "dtype": str(image.dtype),
                "low": min(low, self._image.get("low", low)),
                "high": max(high, self._image.get("high", high)),
            }

    def go_on(self, state: TrainState, first: int) -> None:
        """Makes up for an evaluation that a signal had interrupted."""
        if self._interrupted:
            self.assess(state, first)

    def step_done(
        self,
        state: Callable[[], TrainState],
        metrics: Mapping[str, Array],
        number: int,
    ) -> None:
        """Logs, evaluates and saves after the update `number` if it is time to.

        Args:
            state: Returns the state after it.
            metrics: Of the update, on the device.
            number: Of the update.

        Raises:
            EvaluationStoppedError: If a signal came during an evaluation.
            NonFiniteError: If a loss or gradient since the last line of the log was
                not finite, more often than the configuration lets pass.
        """
        self._pending.append(metrics)
        self.log.tick(number)
        if number % self.config.log_every == 0 or self.due(number):
            self._collect(number)
            self._write_line(number)
        if self.due(number):
            self.assess(state(), number)
        elif self.stop_reason:
            self.save(state(), number)

    def due(self, number: int) -> bool:
        """Whether an evaluation and a checkpoint follow the update `number`."""
        every = self.config.eval_every or self.epoch_steps
        return number % every == 0 or number == self.config.steps

    def assess(self, state: TrainState, number: int) -> None:
        """Evaluates and saves the state after the update `number`."""
        split, monitor = evaluation_split(self.data.splits), self.config.monitor
        metrics = self._evaluate(state, split)
        epoch = number / self.epoch_steps
        self.log.eval(number, metrics, split=split, epoch=epoch)
        loss = _means([{"loss": x} for x in self._losses])["loss"]
        self._losses.clear()
        self._ask_on_eval()
        progress, again = self._progress(), self._interrupted
        self._interrupted = False
        best = self.checkpoints.save(state, metrics, progress=progress, replace=again)
        if best:
            self._save_model(state, number)
        epochs = self.config.steps / self.epoch_steps
        line = metrics_line(metrics, monitor=monitor)
        self.log.say(f"Epoch {epoch:.3g}/{epochs:.3g}  loss {loss:.3f}  {line}")
        self.log.start_clock(number)

    def save(
        self, state: TrainState, number: int, *, interrupted: bool = False
    ) -> None:
        """Saves between evaluations, as a stopped run does.

        Args:
            state: After the update `number`.
            number: Of the update.
            interrupted: Whether an evaluation is due that was not finished.

        Raises:
            NonFiniteError: As `step_done`; nothing is saved then.
        """
        self._collect(number)
        progress = self._progress() | ({"interrupted": True} if interrupted else {})
        self.checkpoints.save(state, {}, progress=progress)

    def final(self, state: TrainState) -> dict[str, Any]:
        """Evaluates the best checkpoint on the split that training never saw.

        Returns:
            What `result.json` says of it.
        """
        reached, best = int(state.step), self.checkpoints.best
        if best is not None and best != reached:
            state = self.checkpoints.restore(best, state)
        step, split = int(state.step), final_split(self.data.splits)
        if self._saved_model != step:
            self._save_model(state, step)
        metrics = self._evaluate(state, split)
        epoch = step / self.epoch_steps
        self.log.eval(step, metrics, split=split, epoch=epoch, final=True)
        line = metrics_line(metrics, monitor=self.config.monitor)
        self.log.say(f"{split.capitalize()}  {line}  (best checkpoint: step {step})")
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
            self.save_model(state, step, self._image)
            self._saved_model = step

    def _ask_on_eval(self) -> None:
        if (ask := self.experiment.on_eval) is None:
            return
        # The first process has the records.
        here = jax.process_index() == 0
        reason = agree.of_the_first(ask(self.log.evaluations) if here else None)
        self._end(reason)

    def _ask_on_step(
        self, ask: OnStep, rows: Sequence[Mapping[str, float]], number: int
    ) -> None:
        reason = None
        if jax.process_index() == 0:
            for step, row in enumerate(rows, number - len(rows) + 1):
                said = ask(step, row)
                reason = reason or said
        self._end(agree.of_the_first(reason))

    def _end(self, reason: Any) -> None:
        if not isinstance(reason, str | None):
            raise ValueError(
                f"A callback needs to return None or a reason to stop, got {reason!r}."
            )
        if reason and self.stop_reason is None:
            self.stop_reason = reason
            self.log.say(f"Stopping: {reason}")

    def _progress(self) -> dict[str, Any]:
        found = {"rows": self._rows, "losses": self._losses, "skipped": self._skipped}
        return found | ({"stop_reason": self.stop_reason} if self.stop_reason else {})

    def _collect(self, number: int) -> None:
        """Fetches the metrics of the updates up to `number`, and checks them."""
        rows = jax.device_get(self._pending)
        self._pending.clear()
        self.first_steps.rows(rows)
        for step, row in enumerate(rows, number - len(rows) + 1):
            metrics = {
                k: float(v) for k, v in row.items() if not k.startswith("digest/")
            }
            self._check(step, metrics)
            self._rows.append(metrics)
            self._losses.append(metrics["loss"])
        if (ask := self.experiment.on_step) is not None:
            self._ask_on_step(ask, self._rows[-len(rows) :] if rows else [], number)

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
        """Writes the means since the last line; updates left out do not count."""
        means = _means(self._rows)
        if self._skipped:
            means["skipped"] = float(self._skipped)
        self._rows.clear()
        self.log.train(number, means)

    def _eval_batches(self, split: str) -> Generator[Batch, None, None]:
        batches = self.data.eval_batches(
            split,
            batch_size=self.config.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with contextlib.closing(batches):
            for batch in batches:
                self.saw(batch)
                yield batch

    def _evaluate(self, state: TrainState, split: str) -> dict[str, float]:
        images, size = self.data.num_examples(split), self.config.batch_size

        def done(batches: int) -> None:
            seen = min(batches * size, images)
            self.log.doing(f"evaluating {split}: {seen}/{images} images")

        batches = self._eval_batches(split)
        return self.evaluate(state, batches, stop=self.stop, done=done)


def evaluation_split(splits: Sequence[str]) -> str:
    """The split that picks the best checkpoint: validation, else test, else train."""
    return next(s for s in ("validation", "test", "train") if s in splits)


def final_split(splits: Sequence[str]) -> str:
    """The split that is reported: test, which picks nothing, else the one above."""
    return "test" if "test" in splits else evaluation_split(splits)


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the updates that were not left out; NaN if there is none.

    The learning rate is that of the last one.
    """
    names = [k for k in ("loss", "grad_norm") if k in rows[0]]
    finite = [row for row in rows if all(math.isfinite(row[k]) for k in names)]
    means = {
        k: float(np.mean([row[k] for row in finite])) if finite else math.nan
        for k in rows[0]
    }
    return means | {k: rows[-1][k] for k in means if k.startswith("learning_rate")}
