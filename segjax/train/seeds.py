"""Several seeds of one experiment, trained by one program, each into its own run."""

import collections
import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from segjax.train import manifest, memory, parallel, seed_folders, together
from segjax.train.config import Experiment
from segjax.train.loop import host_batches, step_of
from segjax.train.record import NonFiniteError, Recorder
from segjax.train.signals import Stopped, stop_requests
from segjax.train.state import TrainState, make_init
from segjax.typing import Batch, PyTree

_AHEAD = 2
"""Batches of all seeds copied in advance, as `parallel.to_devices` does."""


class SeedDivergedError(NonFiniteError):
    """The loss or the gradient of one seed became infinite or NaN.

    Attributes:
        seed: Which.
        step: The update at which it was.
    """

    def __init__(self, seed: int, error: NonFiniteError):
        ArithmeticError.__init__(self, f"Seed {seed}: {error}")
        self.seed, self.step = seed, error.step


def train_seeds(
    experiments: Sequence[Experiment],
    *,
    run: pathlib.Path,
    resume: bool = False,
    flags: Mapping[str, Any] | None = None,
    script: pathlib.Path | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Trains one experiment under several seeds at once.

    Each seed has the initialisation, data order, crops and augmentation of a run of
    its own, and its folder, RUN/seed-SEED, is a run folder like any other. Seeds are
    split over the devices, batches are not; `together` says how one program makes the
    steps of several seeds, and how near they come to those of a run of their own.

    Args:
        experiments: The same experiment under different seeds. Model, objective,
            optimizer, metric and augmentation are taken from the first one.
        run: The folder of the seeds' runs; new, unless `resume`.
        resume: Go on from the newest step of which every seed has a whole checkpoint.
        flags: What the experiments were built from besides the seed.
        script: Where they were defined; each run keeps a copy of it.
        console: Where to print; standard output unless given.

    Returns:
        What `result.json` of each seed holds.

    Raises:
        ValueError: As `train`; or if the experiments differ in more than their seed,
            or two of them have the same.
        SeedDivergedError: If one diverges. All stop; what was saved is kept.
        Stopped: On SIGTERM or Ctrl-C, after saving all.
    """
    began = time.perf_counter()
    seed_folders.check(experiments, run, resume=resume)
    experiments = seed_folders.with_data_of_first(experiments)
    folders = [seed_folders.seed_folder(run, e.config.seed) for e in experiments]
    console = Console(highlight=False) if console is None else console
    with contextlib.ExitStack() as stack:
        kept = [
            seed_folders.open_checkpoints(stack, experiment, folder, resume=resume)
            for experiment, folder in zip(experiments, folders, strict=True)
        ]
        if resume:
            first = seed_folders.common_step(run, experiments, kept, console)
            seed_folders.go_on(experiments, folders, step=first, flags=flags or {})
        else:
            first = 0
            seed_folders.begin(experiments, folders, flags=flags or {}, script=script)
        recorders = seed_folders.recorders(
            stack, experiments, folders, kept, first, console
        )
        stop = stack.enter_context(stop_requests())
        states = _fit(stack, experiments, recorders, first, stop)
        results = [r.final(s) for r, s in zip(recorders, states, strict=True)]
    seconds = {"seconds": round(time.perf_counter() - began, 1)}
    for folder, result in zip(folders, results, strict=True):
        manifest.write_json(folder / "result.json", result | seconds)
    return [result | seconds for result in results]


def _fit(
    stack: contextlib.ExitStack,
    experiments: Sequence[Experiment],
    recorders: Sequence[Recorder],
    first: int,
    stop: Callable[[], int | None],
) -> list[TrainState]:
    """Trains all seeds from step `first` to the end; returns their last states."""
    config, count = experiments[0].config, len(experiments)
    form = together.fastest(
        step_of(experiments[0]), mesh=together.mesh_of_seeds(count), seeds=count
    )
    streams = []
    for e, recorder in zip(experiments, recorders, strict=True):
        host = stack.enter_context(contextlib.closing(host_batches(e, first)))
        streams.append(recorder.first_steps.batches(host))
    batches = _on_devices(zip(*streams, strict=True), form)
    batch = next(batches)
    states = _start(experiments, recorders, first, batch[0]["image"].shape[-3:])
    if first >= config.steps:
        return states
    groups = form.put(states)
    states.clear()  # The step takes the groups over, which may share arrays with them.
    lowered = form.step.lower(groups, batch)
    for recorder in recorders:
        recorder.first_steps.program(lowered)
    step = lowered.compile()
    memory.give_back_freed()
    _start_clocks(recorders, first)
    batches = itertools.chain([batch], batches)
    for number in range(first + 1, config.steps + 1):
        groups, scalars = step(groups, next(batches))
        for recorder, own in zip(recorders, scalars, strict=True):
            with _named(recorder):
                recorder.note(own, number)
        if recorders[0].due(number):
            for place, recorder in enumerate(recorders):
                recorder.assess(_state(form, groups, place), number)
            _start_clocks(recorders, number)
        if signum := stop():
            for place, recorder in enumerate(recorders):
                with _named(recorder):
                    recorder.save(_state(form, groups, place), number)
            raise Stopped(signum, number)
    return [_state(form, groups, place) for place in range(count)]


def _start(
    experiments: Sequence[Experiment],
    recorders: Sequence[Recorder],
    first: int,
    image_shape: Sequence[int],
) -> list[TrainState]:
    """States of checkpoint `first`, or the initial ones."""
    first_one = experiments[0]
    init = make_init(
        first_one.model,
        first_one.optimizer,
        image_shape=image_shape,
        start=first_one.start,
    )
    states = []
    for e, recorder in zip(experiments, recorders, strict=True):
        state = init(jax.random.key(e.config.seed))
        state = jax.device_put(state, parallel.replicated(parallel.make_mesh()))
        states.append(recorder.start(state, first))
    return states


def _state(form: together.Together, groups: PyTree, place: int) -> TrainState:
    """A seed's state where evaluation wants it: on all devices."""
    state = form.take(groups, place)
    return jax.device_put(state, parallel.replicated(parallel.make_mesh()))


def _start_clocks(recorders: Sequence[Recorder], number: int) -> None:
    for recorder in recorders:
        recorder.log.start_clock(number)


@contextlib.contextmanager
def _named(recorder: Recorder) -> Iterator[None]:
    """Says which seed it was that diverged."""
    try:
        yield
    except NonFiniteError as error:
        raise SeedDivergedError(recorder.config.seed, error) from error


def _on_devices(
    batches: Iterable[Sequence[Batch]], form: together.Together
) -> Iterator[tuple[PyTree, ...]]:
    """Copies the batches of all seeds together, some in advance."""
    source = iter(batches)
    queue = collections.deque(map(form.put, itertools.islice(source, _AHEAD)))
    while queue:
        yield queue.popleft()
        queue.extend(map(form.put, itertools.islice(source, 1)))
