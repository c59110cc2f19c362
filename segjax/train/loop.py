"""The loop: batches in, run folder out."""

import contextlib
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from segjax.train import manifest, parallel
from segjax.train.checkpoint import Checkpoints
from segjax.train.config import Experiment
from segjax.train.evaluate import make_evaluator
from segjax.train.log import RunLog, figures_line
from segjax.train.signals import Stopped, stop_requests
from segjax.train.state import TrainState, init_state
from segjax.train.step import make_train_step
from segjax.typing import Batch


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


def train(
    experiment: Experiment,
    *,
    run: pathlib.Path,
    resume: bool = False,
    flags: Mapping[str, Any] | None = None,
    script: pathlib.Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains an experiment into a run folder.

    Batches are split over all devices. Each evaluation saves a checkpoint; the best
    and the last are kept. At the end the best one is evaluated on the split `test`
    where the data has one, else on the split that picked it.

    Args:
        experiment: What to train.
        run: The run folder; new, unless `resume`.
        resume: Go on from the last checkpoint of `run`.
        flags: What the experiment was built from, for `run.json`.
        script: Where `experiment` was defined; a copy of it is kept in the run.
        console: Where to print; standard output unless given.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError: Where the run folder, the flags or a checkpoint do not fit.
        NonFiniteError: If training diverges; the last good checkpoint is kept.
        Stopped: On SIGTERM or Ctrl-C, after saving.
    """
    began = time.perf_counter()
    config = experiment.config
    mesh = parallel.make_mesh()
    parallel.check_divides(config.batch_size, mesh.size)
    manifest.open_run(run, resume=resume)
    with Checkpoints(run / "checkpoints", monitor=config.monitor) as checkpoints:
        first = _first_step(run, checkpoints) if resume else 0
        if not resume:
            manifest.begin_run(run, experiment, flags=flags or {}, script=script)
        log = RunLog(run, config=config, first_step=first, console=console)
        host = _host_batches(experiment, first)
        with log, contextlib.closing(host), stop_requests() as stop:
            fit = _Fit(experiment, mesh, checkpoints, log, stop)
            state = fit.run(host, first)
            result = fit.final(state)
    result |= {"seed": config.seed, "seconds": round(time.perf_counter() - began, 1)}
    manifest.write_json(run / "result.json", result)
    return result


def evaluation_split(splits: Sequence[str]) -> str:
    """The split that picks the best checkpoint: validation, else test, else train."""
    return next(s for s in ("validation", "test", "train") if s in splits)


def final_split(splits: Sequence[str]) -> str:
    """The split that is reported: test, which picks nothing, else the one above."""
    return "test" if "test" in splits else evaluation_split(splits)


def _first_step(run: pathlib.Path, checkpoints: Checkpoints) -> int:
    if checkpoints.last is None:
        raise ValueError(
            f"{run} has no whole checkpoint to go on from. Start another --run."
        )
    return checkpoints.last


def _host_batches(experiment: Experiment, first: int) -> Generator[Batch, None, None]:
    return experiment.data.train_batches(
        batch_size=experiment.config.batch_size,
        seed=experiment.config.seed,
        first_batch=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


class _Fit:
    """The loop's parts, so that its steps read as one page."""

    def __init__(
        self,
        experiment: Experiment,
        mesh: jax.sharding.Mesh,
        checkpoints: Checkpoints,
        log: RunLog,
        stop: Callable[[], int | None],
    ):
        self.config, self.data = experiment.config, experiment.data
        self.experiment, self.mesh = experiment, mesh
        self.checkpoints, self.log, self.stop = checkpoints, log, stop
        self.evaluate = make_evaluator(
            experiment.model.apply,
            experiment.objective,
            experiment.metric,
            mesh,
            inputs=experiment.inputs,
        )
        examples = self.data.num_examples("train")
        self.epoch_steps = max(1, -(-examples // self.config.batch_size))
        self.eval_every = self.config.eval_every or self.epoch_steps
        self.pending: list[dict[str, jax.Array]] = []
        self.losses: list[float] = []  # Since the last evaluation.

    def run(self, host: Iterable[Batch], first: int) -> TrainState:
        """Trains from step `first` to the end; returns the last state."""
        batches = parallel.to_devices(host, self.mesh)
        batch = next(batches)
        state = self._start(batch, first)
        if first >= self.config.steps:
            return state
        step = self._compile(state, batch)
        batches = itertools.chain([batch], batches)
        for number in range(first + 1, self.config.steps + 1):
            state, scalars = step(state, next(batches))
            self.pending.append(scalars)
            self.log.tick(number)
            due = number % self.eval_every == 0 or number == self.config.steps
            signum = self.stop()
            if number % self.config.log_every == 0 or due or signum:
                self._flush(number)
            if due:
                self._evaluate(state, number)
            if signum:
                self.checkpoints.save(state, {})
                raise Stopped(signum, number)
        return state

    def final(self, state: TrainState) -> dict[str, Any]:
        """Evaluates the best checkpoint on the split that training never saw."""
        best = self.checkpoints.best
        if best is not None and best != int(state.step):
            state = self.checkpoints.restore(best, state)
        step, split = int(state.step), final_split(self.data.splits)
        figures = self._figures(state, split)
        self.log.eval(step, figures, split=split, epoch=step / self.epoch_steps)
        line = figures_line(figures, monitor=self.config.monitor)
        self.log.say(f"{split.capitalize()}  {line}  (best checkpoint: step {step})")
        return {
            "metrics": figures,
            "split": split,
            "steps": self.config.steps,
            "best_step": step,
        }

    def _start(self, batch: Batch, first: int) -> TrainState:
        state = init_state(
            self.experiment.model,
            self.experiment.optimizer,
            seed=self.config.seed,
            image_shape=batch["image"].shape[1:],
        )
        state = jax.device_put(state, parallel.replicated(self.mesh))
        if self.checkpoints.last is not None:
            return self.checkpoints.restore(first, state)
        self.checkpoints.save(state, {})  # Something good to return to, from the start.
        return state

    def _compile(self, state: TrainState, batch: Batch) -> Callable:
        """Compiles once, ahead of time: another shape is an error, not a wait."""
        step = make_train_step(
            self.experiment.model.apply,
            self.experiment.objective,
            self.experiment.optimizer,
            self.experiment.augment,
            inputs=self.experiment.inputs,
        )
        compiled = parallel.jit_step(step, self.mesh).lower(state, batch).compile()
        self.log.start_clock(int(state.step))
        return compiled

    def _flush(self, number: int) -> None:
        """Logs the means since the last time, once all of them are known finite."""
        rows = jax.device_get(self.pending)
        self.pending.clear()
        for step, row in enumerate(rows, number - len(rows) + 1):
            for name in ("loss", "grad_norm"):
                if not math.isfinite(row[name]):
                    kept = self.checkpoints.last
                    raise NonFiniteError(step, name, float(row[name]), kept)
        names = [name for name in rows[0] if not name.startswith("digest/")]
        means = {k: float(np.mean([row[k] for row in rows])) for k in names}
        self.log.train(number, means)
        self.losses += [float(row["loss"]) for row in rows]

    def _evaluate(self, state: TrainState, number: int) -> None:
        split, monitor = evaluation_split(self.data.splits), self.config.monitor
        figures = self._figures(state, split)
        if monitor not in figures:
            raise ValueError(
                f"monitor needs one of {', '.join(sorted(figures))}, got {monitor}."
            )
        epoch = number / self.epoch_steps
        self.log.eval(number, figures, split=split, epoch=epoch)
        self.checkpoints.save(state, figures)
        epochs = self.config.steps / self.epoch_steps
        line = figures_line(figures, monitor=monitor)
        loss = float(np.mean(self.losses))
        self.losses.clear()
        self.log.say(f"Epoch {epoch:.3g}/{epochs:.3g}  loss {loss:.3f}  {line}")
        self.log.start_clock(number)

    def _figures(self, state: TrainState, split: str) -> dict[str, float]:
        size = self.config.batch_size
        return self.evaluate(state, self.data.eval_batches(split, batch_size=size))
