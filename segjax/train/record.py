"""What one run writes while it trains: lines, evaluations and checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax.train.checkpoint import Checkpoints
from segjax.train.config import Experiment
from segjax.train.digests import FirstSteps
from segjax.train.log import RunLog, figures_line
from segjax.train.state import TrainState
from segjax.typing import Array, Batch

Evaluator = Callable[[TrainState, Iterable[Batch]], dict[str, float]]


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


class Recorder:
    """Logs, evaluates and saves one run, told of each of its steps.

    What it has not yet written goes into each checkpoint (`progress`), so that a run
    that was stopped between two lines of its log goes on to write the same lines.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        log: RunLog,
        evaluate: Evaluator,
        first_steps: FirstSteps | None = None,
    ):
        """A recorder at the first step.

        Args:
            experiment: What is trained.
            checkpoints: Of the run.
            log: Of the run.
            evaluate: What `make_evaluator` returned.
            first_steps: What gathers the digests of the first updates, if anything.
        """
        self.first_steps = FirstSteps() if first_steps is None else first_steps
        self.config, self.data = experiment.config, experiment.data
        self.checkpoints, self.log, self.evaluate = checkpoints, log, evaluate
        examples = self.data.num_examples("train")
        self.epoch_steps = max(1, -(-examples // self.config.batch_size))
        self._pending: list[Mapping[str, Array]] = []  # On the device.
        self._rows: list[dict[str, float]] = []  # Since the last line of the log.
        self._losses: list[float] = []  # Since the last evaluation.
        self._skipped = 0

    def start(self, state: TrainState, first: int) -> TrainState:
        """The state to begin with: that of checkpoint `first`, or the one given.

        Args:
            state: As `init_state` made it, where it is to be; saved in a new run, so
                that there is something good to return to from the start.
            first: The step to go on from; 0 in a new run.
        """
        self.first_steps.state(state)
        if first not in self.checkpoints.steps:
            self.checkpoints.save(state, {})
            return state
        progress = self.checkpoints.progress(first)
        self._rows = progress.get("rows", [])
        self._losses = progress.get("losses", [])
        self._skipped = progress.get("skipped", 0)
        return self.checkpoints.restore(first, state)

    def step_done(
        self, state: TrainState, scalars: Mapping[str, Array], number: int
    ) -> None:
        """Notes the update `number`; writes what is due after it.

        Raises:
            NonFiniteError: If a loss or gradient since the last line of the log was
                not finite, more often than the configuration lets pass.
        """
        self.note(scalars, number)
        if self.due(number):
            self.assess(state, number)

    def note(self, scalars: Mapping[str, Array], number: int) -> None:
        """The part of `step_done` that needs no state: the log's lines."""
        self._pending.append(scalars)
        self.log.tick(number)
        if number % self.config.log_every == 0 or self.due(number):
            self._collect(number)
            self._write_line(number)

    def due(self, number: int) -> bool:
        """Whether an evaluation and a checkpoint follow the update `number`."""
        every = self.config.eval_every or self.epoch_steps
        return number % every == 0 or number == self.config.steps

    def assess(self, state: TrainState, number: int) -> None:
        """Evaluates and saves the state after the update `number`."""
        split, monitor = evaluation_split(self.data.splits), self.config.monitor
        figures = self._figures(state, split)
        if monitor not in figures:
            raise ValueError(
                f"monitor needs one of {', '.join(sorted(figures))}, got {monitor}."
            )
        epoch = number / self.epoch_steps
        self.log.eval(number, figures, split=split, epoch=epoch)
        loss = _means([{"loss": x} for x in self._losses])["loss"]
        self._losses.clear()
        self.checkpoints.save(state, figures, progress=self._progress())
        epochs = self.config.steps / self.epoch_steps
        line = figures_line(figures, monitor=monitor)
        self.log.say(f"Epoch {epoch:.3g}/{epochs:.3g}  loss {loss:.3f}  {line}")
        self.log.start_clock(number)

    def save(self, state: TrainState, number: int) -> None:
        """Saves between evaluations, as a stopped run does.

        Raises:
            NonFiniteError: As `step_done`; nothing is saved then.
        """
        self._collect(number)
        self.checkpoints.save(state, {}, progress=self._progress())

    def final(self, state: TrainState) -> dict[str, Any]:
        """Evaluates the best checkpoint on the split that training never saw.

        Returns:
            What `result.json` says of it.
        """
        best = self.checkpoints.best
        if best is not None and best != int(state.step):
            state = self.checkpoints.restore(best, state)
        step, split = int(state.step), final_split(self.data.splits)
        figures = self._figures(state, split)
        epoch = step / self.epoch_steps
        self.log.eval(step, figures, split=split, epoch=epoch, final=True)
        line = figures_line(figures, monitor=self.config.monitor)
        self.log.say(f"{split.capitalize()}  {line}  (best checkpoint: step {step})")
        return {
            "metrics": figures,
            "split": split,
            "steps": self.config.steps,
            "best_step": step,
            "seed": self.config.seed,
        }

    def _progress(self) -> dict[str, Any]:
        return {"rows": self._rows, "losses": self._losses, "skipped": self._skipped}

    def _collect(self, number: int) -> None:
        """Fetches the scalars of the updates up to `number`, and checks them."""
        rows = jax.device_get(self._pending)
        self._pending.clear()
        self.first_steps.rows(rows)
        for step, row in enumerate(rows, number - len(rows) + 1):
            figures = {
                k: float(v) for k, v in row.items() if not k.startswith("digest/")
            }
            self._check(step, figures)
            self._rows.append(figures)
            self._losses.append(figures["loss"])

    def _check(self, step: int, figures: Mapping[str, float]) -> None:
        for name in ("loss", "grad_norm"):
            if math.isfinite(figures[name]):
                continue
            self._skipped += 1
            if self._skipped > self.config.skip_nonfinite:
                kept = self.checkpoints.last
                raise NonFiniteError(step, name, figures[name], kept)
            return

    def _write_line(self, number: int) -> None:
        """Writes the means since the last line; updates left out do not count."""
        means = _means(self._rows)
        if self._skipped:
            means["skipped"] = float(self._skipped)
        self._rows.clear()
        self.log.train(number, means)

    def _figures(self, state: TrainState, split: str) -> dict[str, float]:
        batches = self.data.eval_batches(
            split,
            batch_size=self.config.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return self.evaluate(state, batches)


def evaluation_split(splits: Sequence[str]) -> str:
    """The split that picks the best checkpoint: validation, else test, else train."""
    return next(s for s in ("validation", "test", "train") if s in splits)


def final_split(splits: Sequence[str]) -> str:
    """The split that is reported: test, which picks nothing, else the one above."""
    return "test" if "test" in splits else evaluation_split(splits)


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the rows whose figures are all finite; NaN without such a row."""
    finite = [row for row in rows if all(math.isfinite(v) for v in row.values())]
    return {
        k: float(np.mean([row[k] for row in finite])) if finite else math.nan
        for k in rows[0]
    }
