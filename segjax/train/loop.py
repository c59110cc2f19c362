"""The loop: batches in, run folder out."""

import contextlib
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import jax
from rich.console import Console

from segjax.train import agree, digests, manifest, memory, parallel
from segjax.train.accumulate import make_accumulating_step
from segjax.train.checkpoint import Checkpoints
from segjax.train.config import Experiment
from segjax.train.evaluate import make_evaluator
from segjax.train.lock import locked
from segjax.train.log import NoLog, RunLog
from segjax.train.record import Recorder
from segjax.train.signals import Stopped, stop_requests
from segjax.train.state import TrainState, init_state
from segjax.train.step import Step, make_train_step, skip_nonfinite
from segjax.typing import Batch


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
    agree.on_the_first(lambda: manifest.open_run(run, resume=resume))
    first_process = jax.process_index() == 0
    if console is None or not first_process:
        console = Console(highlight=False, quiet=not first_process)
    with (
        locked(run),
        Checkpoints(run / "checkpoints", monitor=config.monitor) as checkpoints,
    ):
        first = _first_step(run, checkpoints, console) if resume else 0
        if first_process and not resume:
            manifest.begin_run(run, experiment, flags=flags or {}, script=script)
        elif first_process:
            manifest.note_resume(run, step=first, flags=flags or {})
        log: RunLog = NoLog()
        if first_process:
            log = RunLog(run, config=config, first_step=first, console=console)
        host = host_batches(experiment, first)
        with log, contextlib.closing(host), stop_requests() as stop:
            recorder = Recorder(
                experiment,
                checkpoints,
                log,
                evaluator(experiment),
                digests.first_steps(run, first=first),
            )
            stop = agree.on_stopping(stop, mesh)
            state = _fit(experiment, mesh, recorder, host, first, stop)
            result = recorder.final(state)
    result |= {"seconds": round(time.perf_counter() - began, 1)}
    if skipped := getattr(experiment.data, "skipped", ()):
        # A figure that was come by without some of the data says so.
        result["skipped_records"] = [str(record) for record in skipped]
    if first_process:
        manifest.write_json(run / "result.json", result)
    return result


def host_batches(experiment: Experiment, first: int) -> Generator[Batch, None, None]:
    """This process's share of the training batches after the first `first`."""
    return experiment.data.train_batches(
        batch_size=experiment.config.batch_size,
        seed=experiment.config.seed,
        first_batch=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def evaluator(experiment: Experiment, mesh: jax.sharding.Mesh | None = None):
    """`make_evaluator` of an experiment's parts."""
    return make_evaluator(
        experiment.model.apply,
        experiment.objective,
        experiment.metric,
        mesh,
        inputs=experiment.inputs,
    )


def step_of(experiment: Experiment) -> Step:
    """The train step of an experiment, not compiled."""
    make, config = make_train_step, experiment.config
    if config.accumulate > 1:
        make = functools.partial(
            make_accumulating_step, micro_batches=config.accumulate
        )
    step = make(
        experiment.model.apply,
        experiment.objective,
        experiment.optimizer,
        experiment.augment,
        inputs=experiment.inputs,
    )
    return skip_nonfinite(step) if config.skip_nonfinite else step


def _first_step(run: pathlib.Path, checkpoints: Checkpoints, console: Console) -> int:
    """The step of the newest whole checkpoint; says which, and which are damaged."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    step, problems = checkpoints.newest_whole()
    if step is None and problems:
        raise ValueError(
            f"{run} has no whole checkpoint to go on from: {'; '.join(problems)}. "
            f"Start another --run."
        )
    for problem in problems:
        say(f"{problem}; it is not used.")
    if step is None:
        say(f"{run} ended before its first checkpoint; starting over.")
        return 0
    say(f"Going on from the checkpoint of step {step}.")
    return step


def _fit(
    experiment: Experiment,
    mesh: jax.sharding.Mesh,
    recorder: Recorder,
    host: Iterable[Batch],
    first: int,
    stop: Callable[[], int | None],
) -> TrainState:
    """Trains from step `first` to the end; returns the last state."""
    config = experiment.config
    batches = parallel.to_devices(recorder.first_steps.batches(host), mesh)
    batch = next(batches)
    state = init_state(
        experiment.model,
        experiment.optimizer,
        seed=config.seed,
        image_shape=batch["image"].shape[1:],
        start=experiment.start,
    )
    state = parallel.replicate(state, mesh)
    state = recorder.start(state, first)
    if first >= config.steps:
        return state
    # Compiled once, ahead of time: another shape is an error, not a wait.
    lowered = parallel.jit_step(step_of(experiment), mesh).lower(state, batch)
    recorder.first_steps.program(lowered)
    step = lowered.compile()
    memory.give_back_freed()
    recorder.log.start_clock(first)
    batches = itertools.chain([batch], batches)
    for number in range(first + 1, config.steps + 1):
        state, scalars = step(state, next(batches))
        recorder.step_done(state, scalars, number)
        if signum := stop():
            recorder.save(state, number)
            raise Stopped(signum, number)
    return state
