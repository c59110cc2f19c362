"""The training loop: from an experiment to a run folder, for one seed or many."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from segjax import multihost, terminal
from segjax.compiler import compiler_options
from segjax.errors import as_user_error
from segjax.run_folder import manifest
from segjax.run_folder.lock import locked
from segjax.run_folder.resume import check_steps, check_unchanged
from segjax.signals import Stopped, stop_requests
from segjax.train import multi_seed, reproducibility, sharding
from segjax.train.checkpoint import Checkpoints
from segjax.train.evaluate import EvaluationStoppedError, Evaluator
from segjax.train.experiment import (
    Experiment,
    build_step,
    check_batch_size,
    check_labels,
    evaluator,
    host_batches,
    initializer,
    open_checkpoints,
)
from segjax.train.memory import trim_memory
from segjax.train.metric_writer import MetricWriter, NullWriter, line_console
from segjax.train.recorder import (
    NonFiniteError,
    Recorder,
    SeedDivergedError,
    model_writer,
)
from segjax.train.state import TrainState, batch_spec
from segjax.typing import Batch, PyTree


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
    multi_seed.check_experiments(experiments, run, resume=resume)
    experiments = multi_seed.share_equal_data(experiments)
    seeds = [experiment.config.seed for experiment in experiments]
    return _train_all(
        experiments,
        [multi_seed.seed_folder(run, seed) for seed in seeds],
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
            first = multi_seed.resume_step(folders, kept, console)
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


@contextlib.contextmanager
def as_stopped(number: int) -> Iterator[None]:
    """Converts a signal during an evaluation, at step `number`, into `Stopped`."""
    try:
        yield
    except EvaluationStoppedError as error:
        raise Stopped(error.signum, number) from error


def fit(
    experiments: Sequence[Experiment],
    recorders: Sequence[Recorder],
    *,
    first: int,
    stop: Callable[[], int | None],
    last: int | None = None,
) -> list[TrainState]:
    """Trains one or many seeds of an experiment.

    Args:
        experiments: They differ only in their seed.
        recorders: One for each; those of `replay` write nothing.
        first: The number of updates done before.
        stop: Returns the signal received so far, or None.
        last: The total number of updates; `config.steps` unless given.

    Returns:
        The final state of each seed.

    Raises:
        Stopped: On a signal, after saving.
        NonFiniteError: If training diverges.
    """
    last = experiments[0].config.steps if last is None else last
    step = multi_seed.seed_step(build_step(experiments[0]), seeds=len(experiments))
    with contextlib.ExitStack() as stack:
        streams = []
        for experiment, recorder in zip(experiments, recorders, strict=True):
            host = host_batches(experiment, first)
            stack.enter_context(contextlib.closing(host))
            streams.append(recorder.digests.batches(host))
        rows = zip(*streams, strict=True)
        recorders[0].log.status("reading the first batch")
        row = next(rows)
        for experiment, recorder, batch in zip(
            experiments, recorders, row, strict=True
        ):
            check_labels(batch, len(experiment.data.classes))
            recorder.note_images(batch)
            recorder.stop = stop
        states = _initial_states(experiments, recorders, row, first)
        with as_stopped(first):
            recorders[0].check_evaluation(states[0])
            for recorder, state in zip(recorders, states, strict=True):
                recorder.begin(state)
            for recorder, state in zip(recorders, states, strict=True):
                recorder.finish_evaluation(state, first)
        if first >= last or all(r.stop_reason for r in recorders):
            return states
        batches = sharding.prefetch(step.pack_batches, itertools.chain([row], rows))
        loop = _Loop(experiments, recorders, step, stop)
        return loop.run(states, batches, first, last)


def _initial_states(
    experiments: Sequence[Experiment],
    recorders: Sequence[Recorder],
    row: Sequence[Batch],
    first: int,
) -> list[TrainState]:
    """The states of checkpoint `first`, or fresh ones."""
    multi_seed.check_same_programs(experiments, row)
    recorders[0].log.status("compiling the initialization")
    init = initializer(experiments[0], batch_spec(row[0]))
    mesh = sharding.make_mesh()
    states = []
    for experiment, recorder in zip(experiments, recorders, strict=True):
        with as_user_error("The model or optimizer cannot be initialized"):
            state = init(jax.random.key(experiment.config.seed))
        states.append(recorder.restore(sharding.replicate(state, mesh), first))
    return states


def _settled(values: PyTree) -> PyTree:
    """The values; waits for them on several CPU devices.

    Programs of several CPU devices that do not depend on each other can run at once,
    and each can hold threads that another one waits for: XLA ends the process.
    """
    if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
        jax.block_until_ready(values)
    return values


class _Loop:
    """Updates, with everything that happens between two of them."""

    def __init__(self, experiments, recorders, step: multi_seed.SeedStep, stop):
        self.recorders, self.step, self.stop = recorders, step, stop
        self.step_digests = reproducibility.StepDigests(experiments[0])
        self.done: dict[int, TrainState] = {}  # Seeds that a callback stopped.

    def run(
        self,
        states: list[TrainState],
        batches: Iterator[tuple[PyTree, ...]],
        first: int,
        last: int,
    ) -> list[TrainState]:
        recorders, batch = self.recorders, next(batches)
        for place, (recorder, state) in enumerate(zip(recorders, states, strict=True)):
            if recorder.stop_reason:
                self.done[place] = jax.tree.map(jnp.copy, state)
        groups = self.step.pack(states)
        states.clear()  # The step is given the groups, which may share their arrays.
        compiled = self._compile(groups, batch)
        for recorder in recorders:
            recorder.log.start_clock(first)
        batches = itertools.chain([batch], batches)
        for number in range(first + 1, last + 1):
            groups, metrics = self._update(compiled, groups, next(batches), number)
            self._record(groups, metrics, number)
            if len(self.done) == len(recorders):
                break
            if signum := self.stop():
                self._save(groups, number, range(len(recorders)))
                raise Stopped(signum, number)
        return [
            self.done.get(place) or self._state(groups, place)
            for place in range(len(recorders))
        ]

    def _compile(self, groups: PyTree, batch: PyTree) -> Callable:
        """Compiles ahead of time, so that another shape is an error, not a delay."""
        self.recorders[0].log.status("compiling the train step")
        lowered = self.step.update.lower(groups, batch)
        for recorder in self.recorders:
            recorder.digests.program(lowered)
        compiled = lowered.compile(compiler_options=compiler_options())
        trim_memory()
        return compiled

    def _update(self, compiled, groups, batch, number):
        """One update; the first ones are digested, by programs beside the step."""
        digests = {
            place: _settled(
                self.step_digests.before(
                    self.step.unpack(groups, place), self.step.unpack(batch, place)
                )
            )
            for place, recorder in enumerate(self.recorders)
            if recorder.digests.wants(number)
        }
        groups, metrics = compiled(groups, batch)
        metrics = list(metrics)
        for place, before in digests.items():
            state = self.step.unpack(groups, place)
            after = self.step_digests.after(state, metrics[place])
            metrics[place] |= before | _settled(after)
        return groups, metrics

    def _record(self, groups: PyTree, metrics: Sequence, number: int) -> None:
        for place, recorder in enumerate(self.recorders):
            if place in self.done:
                continue
            try:
                state = functools.partial(self._state, groups, place)
                recorder.after_step(state, metrics[place], number)
            except EvaluationStoppedError as error:
                rest = range(place, len(self.recorders))
                self._save(groups, number, rest, interrupted=True)
                raise Stopped(error.signum, number) from error
            except NonFiniteError as error:
                raise self._named(error, place) from error.__cause__
            if recorder.stop_reason:
                state = self._state(groups, place)
                self.done[place] = jax.tree.map(jnp.copy, state)
        if self.recorders[0].is_due(number):
            for recorder in self.recorders:
                recorder.log.start_clock(number)

    def _save(self, groups, number, places, *, interrupted: bool = False) -> None:
        for place in places:
            recorder = self.recorders[place]
            if place in self.done:
                continue
            state = self._state(groups, place)
            try:
                recorder.save(state, number, interrupted=interrupted)
            except NonFiniteError as error:
                raise self._named(error, place) from error.__cause__

    def _named(self, error: NonFiniteError, place: int) -> NonFiniteError:
        """Adds the seed to the error if there are several."""
        if len(self.recorders) == 1:
            return error
        return SeedDivergedError(self.recorders[place].config.seed, error)

    def _state(self, groups: PyTree, place: int) -> TrainState:
        """The state of a seed, on all devices as evaluation needs it."""
        state = self.step.unpack(groups, place)
        if self.step.batch_is_split:
            return state
        return jax.device_put(state, sharding.replicated(sharding.make_mesh()))
