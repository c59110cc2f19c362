"""The loop: batches in, run folder out."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from segjax.train import (
    agree,
    check,
    digests,
    going_on,
    manifest,
    memory,
    parallel,
    saved_model,
    together,
)
from segjax.train.checkpoint import Checkpoints
from segjax.train.config import Experiment
from segjax.train.evaluate import EvaluationStoppedError, Evaluator, make_evaluator
from segjax.train.lock import locked
from segjax.train.log import NullWriter, RunLog
from segjax.train.record import NonFiniteError, Recorder, SeedDivergedError
from segjax.train.signals import Stopped, stop_requests
from segjax.train.state import Spec, TrainState, batch_spec, make_init
from segjax.train.step import Step, as_step, skip_nonfinite
from segjax.typing import Batch, Data, Key, PyTree


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
    first one writes the logs. Each evaluation saves a checkpoint; the best
    and the last are kept. At the end the best one is evaluated on the split `test`
    where the data has one, else on the split that picked it.

    Args:
        experiment: What to train.
        run: The run folder; new, unless `resume`.
        resume: Go on from the newest whole checkpoint of `run`; the console says
            which, and which were damaged.
        flags: What the experiment was built from, for `run.json`.
        script: Where `experiment` was defined; a copy of it is kept in the run.
        console: Where to print; standard output unless given.
        allow_changes: Resume with other data or another script than those of the
            run, and note both in `run.json`.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError: Where the run folder, the flags or a checkpoint do not fit, or
            another process writes the run.
        NonFiniteError: If training diverges; the last good checkpoint is kept.
        SaveError: If a checkpoint could not be written, as on a full disk.
        Stopped: On SIGTERM or Ctrl-C, after saving.
    """
    began = time.perf_counter()
    config = experiment.config
    mesh = parallel.make_mesh()
    parallel.check_divides(
        config.batch_size, mesh.size, micro_batches=config.accumulate
    )
    check.batch_fits(config.batch_size, experiment.data.num_examples("train"))
    agree.on_the_first(lambda: manifest.open_run(run, resume=resume))
    same: dict[str, Any] = {}
    first_process = jax.process_index() == 0
    if console is None or not first_process:
        console = Console(highlight=False, quiet=not first_process)
    with (
        locked(run),
        open_checkpoints(experiment, run) as checkpoints,
    ):
        first = 0
        if resume:
            first = _first_step(run, checkpoints, console)
            going_on.check_steps(run, config, first)
            agree.on_the_first(
                lambda: same.update(
                    going_on.check_same(
                        run, experiment, script=script, allow_changes=allow_changes
                    )
                )
            )
        log: RunLog = NullWriter()
        begin: Callable[[], None] | None = None
        if first_process:
            log = RunLog(run, config=config, first_step=first, console=console)
            begin = manifest.beginning(
                run,
                experiment,
                resumed_at=first if resume else None,
                flags=flags or {},
                script=script,
                resumed_with=same,
            )
        with log, stop_requests() as stop:
            recorder = Recorder(
                experiment,
                checkpoints,
                log,
                evaluator(experiment),
                digests.first_steps(run, first=first),
                saved_model.writer(experiment, run) if first_process else None,
                begin_run=begin,
            )
            stop = agree.on_stopping(stop, mesh)
            (state,) = fit([experiment], [recorder], first=first, stop=stop)
            with leaving(recorder, config.steps):
                result = recorder.final(state)
    result |= {"seconds": round(time.perf_counter() - began, 1)}
    if skipped := getattr(experiment.data, "skipped", ()):
        # A metric that was measured without some of the data says so.
        result["skipped_records"] = [str(record) for record in skipped]
    if first_process:
        manifest.write_json(run / "result.json", result)
    return result


def open_checkpoints(experiment: Experiment, run: pathlib.Path) -> Checkpoints:
    """The checkpoints of a run, ranked as its configuration says."""
    config = experiment.config
    folder = run / "checkpoints"
    return Checkpoints(folder, monitor=config.monitor, mode=config.mode)


def host_batches(experiment: Experiment, first: int) -> Generator[Batch, None, None]:
    """This process's share of the training batches after the first `first`."""
    return experiment.data.train_batches(
        batch_size=experiment.config.batch_size,
        seed=experiment.config.seed,
        first_batch=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def evaluator(
    experiment: Experiment, mesh: jax.sharding.Mesh | None = None
) -> Evaluator:
    """`make_evaluator` of an experiment's parts."""
    return make_evaluator(
        experiment.forward,
        experiment.objective,
        experiment.metric,
        mesh,
        variables=step_of(experiment).variables,
    )


def step_of(experiment: Experiment) -> Step:
    """The train step of an experiment, not compiled."""
    step = as_step(experiment.step(experiment))
    return skip_nonfinite(step) if experiment.config.skip_nonfinite else step


def initializer(experiment: Experiment, spec: Spec) -> Callable[[Key], TrainState]:
    """`key -> first state` of an experiment whose stored batches are as `spec` says."""
    return make_init(
        experiment.forward,
        experiment.optimizer,
        spec=spec,
        init_from=experiment.init_from,
        complete=step_of(experiment).init,
    )


def data_spec(data: Data) -> dict[str, tuple[str, tuple[int, ...]]]:
    """`batch_spec` of what data yield for training, read off one batch."""
    with contextlib.closing(data.train_batches(batch_size=1, seed=0)) as batches:
        return batch_spec(next(batches))


def abstract_state_of(experiment: Experiment, spec: Spec) -> TrainState:
    """Shapes and dtypes of an experiment's states, with nothing computed."""
    bare = dataclasses.replace(experiment, init_from=None)
    return jax.eval_shape(initializer(bare, spec), jax.random.key(0))


def _first_step(run: pathlib.Path, checkpoints: Checkpoints, console: Console) -> int:
    """The step of the newest whole checkpoint; says which, and which are damaged."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    agree.on_the_first(lambda: going_on.check_log(run))
    step, problems = checkpoints.newest_whole()
    if step is None and problems:
        raise ValueError(
            f"{run} has no whole checkpoint to go on from: {'; '.join(problems)}. "
            f"Start another --run."
        )
    for problem in problems:
        say(f"{problem}; it is not used.")
    if step is None:
        agree.on_the_first(lambda: going_on.check_nothing_lost(run))
        say(f"{run} ended before its first checkpoint; starting over.")
        return 0
    say(f"Going on from the checkpoint of step {step}.")
    return step


@contextlib.contextmanager
def leaving(recorder: Recorder, number: int) -> Iterator[None]:
    """Turns a signal that came in the final evaluation into `Stopped`."""
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
    """Trains one or many seeds of an experiment; a list of one is a list.

    Args:
        experiments: The same but for their seed.
        recorders: One each. `replay` gives some that write nothing.
        first: Updates done before.
        stop: The signal received so far, or None.
        last: Updates in total; those of the configuration unless given.

    Returns:
        The last state of each seed.

    Raises:
        Stopped: On a signal, after saving.
        NonFiniteError: If training diverges.
    """
    config = experiments[0].config
    last = config.steps if last is None else last
    form = together.form_of(step_of(experiments[0]), seeds=len(experiments))
    with contextlib.ExitStack() as stack:
        streams = []
        for experiment, recorder in zip(experiments, recorders, strict=True):
            host = host_batches(experiment, first)
            stack.enter_context(contextlib.closing(host))
            streams.append(recorder.first_steps.batches(host))
        rows = zip(*streams, strict=True)
        recorders[0].log.doing("reading the first batch")
        row = next(rows)
        for experiment, recorder, batch in zip(
            experiments, recorders, row, strict=True
        ):
            check.label_range(batch, len(experiment.data.classes))
            recorder.saw(batch)
            recorder.stop = stop
        states = _first_states(experiments, recorders, row, first)
        with leaving(recorders[0], first):
            recorders[0].check_monitor(states[0])
            for recorder, state in zip(recorders, states, strict=True):
                recorder.begin(state, first)
            for recorder, state in zip(recorders, states, strict=True):
                recorder.go_on(state, first)
        if first >= last or all(r.stop_reason for r in recorders):
            return states
        batches = parallel.put_ahead(form.put_batches, itertools.chain([row], rows))
        run = _Run(experiments, recorders, form, stop)
        return run.train(states, batches, first, last)


def _first_states(
    experiments: Sequence[Experiment],
    recorders: Sequence[Recorder],
    row: Sequence[Batch],
    first: int,
) -> list[TrainState]:
    """States of checkpoint `first`, or those that the experiments begin with."""
    check.same_but_for_seed(experiments, row)
    recorders[0].log.doing("compiling the initialization")
    init = initializer(experiments[0], batch_spec(row[0]))
    mesh = parallel.make_mesh()
    states = []
    for experiment, recorder in zip(experiments, recorders, strict=True):
        state = init(jax.random.key(experiment.config.seed))
        states.append(recorder.start(parallel.replicate(state, mesh), first))
    return states


class _Run:
    """The loop of `fit` from its first update on."""

    def __init__(self, experiments, recorders, form: together.Together, stop):
        self.recorders, self.form, self.stop = recorders, form, stop
        self.beside = digests.Beside(experiments[0])
        self.done: dict[int, TrainState] = {}  # Seeds that a callback has ended.

    def train(
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
        groups = self.form.put(states)
        states.clear()  # The step takes the groups, which may share arrays with them.
        step = self._compiled(groups, batch)
        for recorder in recorders:
            recorder.log.start_clock(first)
        batches = itertools.chain([batch], batches)
        for number in range(first + 1, last + 1):
            groups, metrics = self._step(step, groups, next(batches), number)
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

    def _compiled(self, groups: PyTree, batch: PyTree) -> Callable:
        """Ahead of time: another shape is an error, not a wait."""
        self.recorders[0].log.doing("compiling the train step")
        lowered = self.form.step.lower(groups, batch)
        for recorder in self.recorders:
            recorder.first_steps.program(lowered)
        step = lowered.compile()
        memory.give_back_freed()
        return step

    def _step(self, step, groups, batch, number):
        """One update, with digests beside it in the first ones."""
        looked_at = {
            place: self.beside.before(
                self.form.take(groups, place), self.form.take(batch, place)
            )
            for place, recorder in enumerate(self.recorders)
            if recorder.first_steps.wants(number)
        }
        groups, metrics = step(groups, batch)
        metrics = list(metrics)
        for place, digest in looked_at.items():
            state = self.form.take(groups, place)
            metrics[place] |= digest | self.beside.after(state, metrics[place])
        return groups, metrics

    def _record(self, groups: PyTree, metrics: Sequence, number: int) -> None:
        for place, recorder in enumerate(self.recorders):
            if place in self.done:
                continue
            try:
                state = functools.partial(self._state, groups, place)
                recorder.step_done(state, metrics[place], number)
            except EvaluationStoppedError as error:
                rest = range(place, len(self.recorders))
                self._save(groups, number, rest, interrupted=True)
                raise Stopped(error.signum, number) from error
            except NonFiniteError as error:
                raise self._named(error, place) from error.__cause__
            if recorder.stop_reason:
                state = self._state(groups, place)
                self.done[place] = jax.tree.map(jnp.copy, state)
        if self.recorders[0].due(number):
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
        """Says which of several seeds it was that diverged."""
        if len(self.recorders) == 1:
            return error
        return SeedDivergedError(self.recorders[place].config.seed, error)

    def _state(self, groups: PyTree, place: int) -> TrainState:
        """A seed's state where evaluation wants it: on all devices."""
        state = self.form.take(groups, place)
        if self.form.batch_is_split:
            return state
        return jax.device_put(state, parallel.replicated(parallel.make_mesh()))
