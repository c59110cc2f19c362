"""Training into a run folder, for one seed or many."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from segjax import multihost, terminal
from segjax.run_folder import manifest
from segjax.run_folder.lock import locked
from segjax.run_folder.resume import check_steps, check_unchanged
from segjax.signals import stop_requests
from segjax.train import reproducibility, seed_runs, sharding
from segjax.train.checkpoint import Checkpoints
from segjax.train.evaluate import Evaluator
from segjax.train.experiment import (
    Experiment,
    check_batch_size,
    evaluator,
    open_checkpoints,
)
from segjax.train.loop import as_stopped, fit
from segjax.train.metric_writer import MetricWriter, NullWriter, line_console
from segjax.train.recorder import Recorder, model_writer


def train(
    experiment: Experiment,
    *,
    run: pathlib.Path,
    resume: bool = False,
    flags: Mapping[str, Any] | None = None,
    script: pathlib.Path | None = None,
    console: Console | None = None,
    allow_changes: bool = False,
) -> dict[str, Any]:
    """Trains an experiment into a run folder.

    Batches are split over all devices of all processes, each of which calls this; the
    first process writes the logs. A checkpoint is saved with each evaluation; the best
    and the last ones are kept. At the end the best one is evaluated on the split
    `test` if the data has one, else on the split that picked it.

    Args:
        experiment: The experiment.
        run: The run folder; new, unless `resume`.
        resume: Continue from the newest intact checkpoint of `run`; the console shows
            which one, and which ones are damaged.
        flags: The keywords the experiment was built with, for `run.json`.
        script: The file that defines the experiment; it is copied into the run.
        console: Where to print; standard output unless given.
        allow_changes: Resume with other data or another script than those of the
            run, and note both in `run.json`.

    Returns:
        The content of `result.json`.

    Raises:
        ValueError: If the run folder, the flags or a checkpoint do not fit, or another
            process writes the run.
        NonFiniteError: If training diverges; the last good checkpoint is kept.
        SaveError: If a checkpoint could not be written, as on a full disk.
        Stopped: On SIGTERM or Ctrl-C, after saving.
    """
    check_batch_size(experiment)
    return _train_all(
        [experiment],
        [run],
        resume=resume,
        flags=[flags or {}],
        script=script,
        console=console,
        allow_changes=allow_changes,
    )[0]


def train_seeds(
    experiments: Sequence[Experiment],
    *,
    run: pathlib.Path,
    resume: bool = False,
    flags: Mapping[str, Any] | None = None,
    script: pathlib.Path | None = None,
    console: Console | None = None,
    allow_changes: bool = False,
) -> list[dict[str, Any]]:
    """Trains an experiment with several seeds at once, by one program.

    Each seed has the initialization, data order, crops and augmentation of a single
    run, and its own run folder, RUN/seed-SEED. Seeds are split over the devices,
    batches are not; `multi_seed.SeedStep` says how closely the numbers match those of
    single runs. If a callback stops a seed, the others continue.

    Args:
        experiments: The same experiment with different seeds.
        run: The folder of the seeds' runs; new, unless `resume`.
        resume: Continue from the newest step of which every seed has an intact
            checkpoint.
        flags: The keywords the experiments were built with, without the seed.
        script: The file that defines them; it is copied into each run.
        console: Where to print; standard output unless given.
        allow_changes: As in `train`.

    Returns:
        The content of `result.json` of each seed.

    Raises:
        ValueError: As `train`; or if two experiments have the same seed, or differ in
            a program (initialization, step or evaluation).
        SeedDivergedError: If a seed diverges. All stop; what was saved is kept.
        Stopped: On SIGTERM or Ctrl-C, after saving all.
    """
    seed_runs.check_experiments(experiments, run, resume=resume)
    experiments = seed_runs.share_equal_data(experiments)
    seeds = [experiment.config.seed for experiment in experiments]
    return _train_all(
        experiments,
        [seed_runs.seed_folder(run, seed) for seed in seeds],
        resume=resume,
        flags=[{**(flags or {}), "seed": seed} for seed in seeds],
        script=script,
        console=console,
        allow_changes=allow_changes,
        more={"seeds_together": seeds},
    )


def _train_all(
    experiments: Sequence[Experiment],
    folders: Sequence[pathlib.Path],
    *,
    resume: bool,
    flags: Sequence[Mapping[str, Any]],
    script: pathlib.Path | None,
    console: Console | None,
    allow_changes: bool,
    more: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Trains one or many seeds, each into its own run folder."""
    if console is None or jax.process_index() > 0:
        console = terminal.console(quiet=jax.process_index() > 0)
    # A kill while the first files were written leaves some seeds without a run.
    of_seeds = more is not None  # Also if there is only one.
    resumes = [
        resume and not (of_seeds and manifest.was_killed_at_start(folder))
        for folder in folders
    ]
    runs = [
        _Run(*parts, script=script)
        for parts in zip(experiments, folders, flags, resumes, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        kept = [run.open_checkpoints(stack) for run in runs]
        first = None
        if resume:
            first = seed_runs.resume_step(folders, kept, console)
            for run in runs:
                multihost.run_on_first(
                    functools.partial(run.check, first, allow_changes=allow_changes)
                )
        evaluate = evaluator(experiments[0])
        logs = _logs(stack, runs, console, first_step=first or 0, with_seed=of_seeds)
        recorders = [
            run.recorder(evaluate, log, resumed_at=first, more=more)
            for run, log in zip(runs, logs, strict=True)
        ]
        stop = stack.enter_context(stop_requests())
        stop = multihost.agreed_stop(stop, sharding.make_mesh())
        states = fit(experiments, recorders, first=first or 0, stop=stop)
        with as_stopped(experiments[0].config.steps):
            results = [
                recorder.evaluate_best(state)
                for recorder, state in zip(recorders, states, strict=True)
            ]
    return [
        run.write_result(result | {"seconds": recorder.seconds})
        for run, result, recorder in zip(runs, results, recorders, strict=True)
    ]


@dataclasses.dataclass
class _Run:
    """One experiment and its run folder."""

    experiment: Experiment
    folder: pathlib.Path
    flags: Mapping[str, Any]
    resume: bool
    script: pathlib.Path | None
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def open_checkpoints(self, stack: contextlib.ExitStack) -> Checkpoints:
        """Creates and locks the folder; the stack unlocks it."""
        multihost.run_on_first(
            functools.partial(
                manifest.open_folder,
                self.folder,
                resume=self.resume,
                script=self.script,
            )
        )
        stack.enter_context(locked(self.folder))
        self.checkpoints = open_checkpoints(self.experiment, self.folder)
        return stack.enter_context(self.checkpoints)

    def check(self, first: int, *, allow_changes: bool) -> None:
        """Raises a ValueError if the run cannot be resumed; changes no file."""
        check_steps(self.folder, total=self.experiment.config.steps, done=first)
        if not self.resume:
            return
        self.changes = check_unchanged(
            self.folder,
            self.experiment,
            script=self.script,
            allow_changes=allow_changes,
        )

    def recorder(
        self,
        evaluate: Evaluator,
        log: MetricWriter,
        *,
        resumed_at: int | None,
        more: Mapping[str, Any] | None,
    ) -> Recorder:
        """Builds the recorder of the run; only the first process writes files."""
        writes = jax.process_index() == 0
        begin = functools.partial(self.write_manifest, resumed_at, more)
        return Recorder(
            self.experiment,
            self.checkpoints,
            log,
            evaluate,
            reproducibility.digest_recorder(self.folder, first=resumed_at or 0),
            model_writer(self.experiment, self.folder) if writes else None,
            begin_run=begin if writes else None,
        )

    def write_manifest(
        self, resumed_at: int | None, more: Mapping[str, Any] | None
    ) -> None:
        """Writes `run.json`, or adds the resume to it."""
        options = {"flags": self.flags, "script": self.script}
        if resumed_at is None or not self.resume:
            manifest.write_manifest(self.folder, self.experiment, more=more, **options)
        else:
            manifest.append_resume(
                self.folder, step=resumed_at, more=self.changes, **options
            )

    def write_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Writes `result.json`, which lists the records that were skipped."""
        if skipped := getattr(self.experiment.data, "skipped", ()):
            result["skipped_records"] = [str(record) for record in skipped]
        if jax.process_index() == 0:
            manifest.write_json(self.folder / "result.json", result)
        return result


def _logs(
    stack: contextlib.ExitStack,
    runs: Sequence[_Run],
    console: Console,
    *,
    first_step: int,
    with_seed: bool,
) -> list[MetricWriter]:
    """A metric writer for each run, closed by the stack; the first shows the bar."""
    if jax.process_index() > 0:
        return [NullWriter() for _ in runs]
    return [
        stack.enter_context(
            MetricWriter(
                run.folder,
                config=run.experiment.config,
                first_step=first_step,
                console=console if number == 0 else line_console(console),
                name=f"Seed {run.experiment.config.seed}" if with_seed else "",
                heartbeat=30.0 if number == 0 else 0.0,
            )
        )
        for number, run in enumerate(runs)
    ]
