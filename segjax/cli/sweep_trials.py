"""Trains the trials of a sweep, each as runs of `segjax train` in processes."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from segjax.cli import sweep_space
from segjax.errors import UserError
from segjax.run_folder import schema
from segjax.run_folder.lock import locked

_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
_POLL = 0.5
"""Seconds between looks at a run."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all trials of a sweep share.

    Attributes:
        study: Optuna's.
        space: The settings that are searched.
        command: Arguments of segjax that train with the settings that are not.
        build: The experiment function, for the flags of settings.
        folder: Holds trial-0000/seed-0/, ....
        seeds: Of each trial.
        monitor: The metric.
        split: What it is measured on.
        prune: Whether bad trials are stopped early.
        program: What runs `command`.
        stopped: Set when the sweep is interrupted.
    """

    study: Any
    space: Sequence[sweep_space.Dimension]
    command: Sequence[str]
    build: Callable
    folder: pathlib.Path
    seeds: Sequence[int]
    monitor: str
    split: str
    prune: bool
    program: Sequence[str] = (sys.executable, "-m", "segjax")
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)

    def trial_folder(self, number: int) -> pathlib.Path:
        """The folder of a trial's runs."""
        return self.folder / f"trial-{number:04d}"

    @property
    def maximizes(self) -> bool:
        """Whether larger values of the metric are better."""
        return self.study.direction.name == "MAXIMIZE"


class _Pruned(Exception):
    """The trial is worse than the others were at the same update."""


class _Failed(Exception):
    """A run failed; the message is its last line."""


class _Stopped(Exception):
    """The sweep was interrupted."""


def abandoned(plan: Plan) -> list[int]:
    """Numbers of trials whose process ended without a result, in order.

    A trial whose folder another process has locked is still trained by it, and one
    without a folder is another machine's.
    """
    import optuna

    found = []
    running = (optuna.trial.TrialState.RUNNING,)
    for trial in plan.study.get_trials(states=running, deepcopy=False):
        folder = plan.trial_folder(trial.number)
        if folder.is_dir() and not _is_locked(folder):
            found.append(trial.number)
    return found


def resumed(study: Any, number: int) -> Any:
    """Returns an abandoned trial, with the settings that it has."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    return optuna.trial.Trial(study, trials[number]._trial_id)


def train(plan: Plan, trial: Any, settings: Mapping[str, Any]) -> str:
    """Trains a trial with all seeds, and tells the study.

    Args:
        plan: The sweep.
        trial: Optuna's, which has its settings.
        settings: The same.

    Returns:
        A line for the terminal.
    """
    import optuna

    states = optuna.trial.TrialState
    folder = plan.trial_folder(trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    shown = "  ".join(f"{name} {_short(value)}" for name, value in settings.items())
    title = f"trial {trial.number}  {shown}"
    if (like := _alike(plan, settings)) is not None:
        plan.study.tell(trial, like.value)
        return f"{title}  as trial {like.number}: {plan.monitor} {like.value:.4f}"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except UserError:  # It began just when we looked for abandoned trials.
            return f"{title}  is trained by another process"
        try:
            values = [
                _train_seed(plan, trial, settings, seed, prune=number == 0)
                for number, seed in enumerate(plan.seeds)
            ]
        except _Pruned as pruned:
            plan.study.tell(trial, state=states.PRUNED)
            return f"{title}  pruned {pruned}"
        except _Failed as failed:
            trial.set_user_attr("error", str(failed))
            plan.study.tell(trial, state=states.FAIL)
            _stop_if_all_fail(plan, str(failed))
            return f"{title}  failed: {failed}"
        except _Stopped:
            return f"{title}  stopped"
        value = statistics.fmean(values)
        trial.set_user_attr("values", values)
        plan.study.tell(trial, value)
    seconds = time.monotonic() - began
    best = plan.study.best_value
    return f"{title}  {plan.monitor} {value:.4f}  best {best:.4f}  {seconds:.0f} s"


def _alike(plan: Plan, settings: Mapping[str, Any]) -> Any | None:
    """A complete trial with the same settings: it would have the same result."""
    trials = plan.study.get_trials(deepcopy=False)
    alike = (t for t in trials if t.params == settings and t.value is not None)
    return next((t for t in alike if t.state.name == "COMPLETE"), None)


def _train_seed(
    plan: Plan, trial: Any, settings: Mapping[str, Any], seed: int, *, prune: bool
) -> float:
    """Trains one seed to its end, and returns its best value."""
    run = plan.trial_folder(trial.number) / f"seed-{seed}"
    _wait_for_writer(plan, run)
    reported = plan.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    log = Log(
        run / "metrics.jsonl", plan.monitor, plan.split, after=max(reported, default=-1)
    )
    if not (run / "result.json").exists():
        args = [*plan.command, *sweep_space.as_flags(plan.build, settings)]
        args += ["--seed", str(seed), "--run", str(run)]
        args += ["--resume"] if (run / "run.json").exists() else []
        output = run.with_name(f"{run.name}.log")
        with output.open("ab") as file:
            child = subprocess.Popen(
                [*plan.program, *args],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                _watch(plan, trial, child, log, prune=prune and plan.prune)
            finally:
                _end(child)
        if child.returncode in _STOPPED:
            plan.stopped.set()
            raise _Stopped
        if child.returncode:
            raise _Failed(_last_line(output))
    values = [value for _, value in log.read()]
    if not values:
        raise _Failed(f"{log.path} has no {plan.monitor} of {plan.split}.")
    return max(values) if plan.maximizes else min(values)


def _watch(plan, trial, child, log: "Log", *, prune: bool) -> None:
    """Reports a run's values until it ends."""
    while child.poll() is None:
        if plan.stopped.wait(_POLL):
            raise _Stopped
        if not prune:
            continue
        for step, value in log.new():
            trial.report(value, step)
            if trial.should_prune():
                raise _Pruned(f"at update {step}, {plan.monitor} {value:.4f}")


def _end(child: subprocess.Popen) -> None:
    """Ends a run that is not needed; it saves a checkpoint first."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        child.wait()


def _wait_for_writer(plan: Plan, run: pathlib.Path) -> None:
    """Waits for a process that still trains the run since its sweep was killed."""
    told = False
    while run.is_dir() and _is_locked(run):
        if not told:
            told = True
            print(f"{run} is still trained by a process; waiting.", file=sys.stderr)
        if plan.stopped.wait(_POLL):
            raise _Stopped


def _is_locked(folder: pathlib.Path) -> bool:
    try:
        with locked(folder):
            return False
    except UserError:
        return True


def _stop_if_all_fail(plan: Plan, reason: str) -> None:
    """Raises a ValueError if the first three trials failed, or the only ones."""
    trials = plan.study.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state.is_finished()]
    if len(ended) >= 3 and all(t.state.name == "FAIL" for t in ended):
        raise UserError(
            f"All {len(ended)} trials have failed, the last one by: {reason} Their "
            f"output is in {plan.folder}/trial-*/seed-*.log."
        )


class Log:
    """Reads the values of a metric from a run's `metrics.jsonl` while it is written."""

    def __init__(self, path: pathlib.Path, metric: str, split: str, *, after: int = -1):
        """Reads nothing yet.

        Args:
            path: The file, which need not exist yet.
            metric: Its name.
            split: The split that it is of.
            after: The last update whose value is not new.
        """
        self.path = path
        self._metric, self._split = metric, split
        self._last = after
        self._position = 0

    def read(self) -> Iterator[tuple[int, float]]:
        """Yields (update, value) of all lines so far."""
        self._position = 0
        yield from self._values()

    def new(self) -> Iterator[tuple[int, float]]:
        """Yields those that were not yielded before, without reading the others."""
        for step, value in self._values():
            if step > self._last:
                self._last = step
                yield step, value

    def _values(self) -> Iterator[tuple[int, float]]:
        """Yields (update, value) of the complete lines from the position on."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._position:
                self._position = 0  # A resumed run dropped lines.
            file.seek(self._position)
            lines = file.read().split(b"\n")[:-1]  # The last may be torn.
        self._position += sum(len(line) + 1 for line in lines)
        for line in lines:
            record = schema.record_of(line)
            if record is None or record["kind"] != "eval":
                continue
            value = record.get(self._metric)
            if record.get("split") == self._split and isinstance(value, int | float):
                yield record["step"], float(value)


def _last_line(path: pathlib.Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"{path} is empty."


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
