"""The training loop, for one seed or many."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp

from segjax.compiler import compiler_options
from segjax.errors import as_user_error
from segjax.memory import trim_memory
from segjax.signals import Stopped
from segjax.train import multi_seed, reproducibility, seed_runs, sharding
from segjax.train.evaluate import EvaluationStoppedError
from segjax.train.experiment import (
    Experiment,
    build_step,
    check_labels,
    host_batches,
    initializer,
)
from segjax.train.recorder import NonFiniteError, Recorder, SeedDivergedError
from segjax.train.state import TrainState, batch_spec
from segjax.typing import Batch, PyTree


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
    seed_runs.check_same_programs(experiments, row)
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
