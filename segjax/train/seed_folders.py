"""The run folders of several seeds: opened, checked and written together."""

import contextlib
import dataclasses
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from segjax.train import check as checks
from segjax.train import digests, going_on, loop, manifest, parallel, saved_model
from segjax.train.checkpoint import Checkpoints
from segjax.train.config import Experiment
from segjax.train.lock import LOCK, locked
from segjax.train.log import RunLog
from segjax.train.record import Recorder


def seed_folder(run: pathlib.Path, seed: int) -> pathlib.Path:
    """The run folder of one seed."""
    return run / f"seed-{seed}"


def check(
    experiments: Sequence[Experiment], run: pathlib.Path, *, resume: bool
) -> None:
    """Raises a ValueError unless these can be trained together, into this folder."""
    if jax.process_count() > 1:
        raise ValueError(
            f"Seeds are trained by one process, got {jax.process_count()}. "
            f"Give each process seeds and a --run of its own, without --distributed."
        )
    seeds = [e.config.seed for e in experiments]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"Each seed is trained once, got {seeds or 'none'}.")
    configs = [dataclasses.replace(e.config, seed=0) for e in experiments]
    if any(config != configs[0] for config in configs):
        raise ValueError(
            "Experiments that are trained together differ in their seed only. "
            "Take steps, batch size and the rest from other flags than the seed."
        )
    checks.batch_fits(configs[0].batch_size, experiments[0].data.num_examples("train"))
    # Evaluation splits a batch over all devices, as in a run of one seed.
    parallel.check_divides(
        configs[0].batch_size,
        parallel.make_mesh().size,
        micro_batches=configs[0].accumulate,
    )
    folders = [seed_folder(run, seed) for seed in seeds]
    others = set(run.iterdir()) - set(folders) if run.is_dir() else set()
    if not resume and (others or not all(map(manifest.is_free, folders))):
        raise ValueError(
            f"{run} is not empty. Go on with its seeds by --resume, "
            f"or choose another folder by --run."
        )


def with_data_of_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Lets equal data be kept in memory once; data that differ stay each seed's own."""
    data = experiments[0].data
    return [
        dataclasses.replace(e, data=data) if _equal(e.data, data) else e
        for e in experiments
    ]


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except ValueError:  # Of arrays, which compare element by element.
        return False


def has_run(folder: pathlib.Path) -> bool:
    """Whether a seed's folder has a run that can be gone on with."""
    return (folder / "run.json").exists()


def open_checkpoints(
    stack: contextlib.ExitStack,
    experiment: Experiment,
    folder: pathlib.Path,
    *,
    resume: bool,
) -> Checkpoints:
    """Opens a seed's folder for this process alone."""
    # A kill while the first files were written has left some seeds without a run.
    was_killed = not has_run(folder) and (folder / LOCK).exists()
    manifest.open_run(folder, resume=resume and not was_killed)
    stack.enter_context(locked(folder))
    return stack.enter_context(loop.open_checkpoints(experiment, folder))


def common_step(
    run: pathlib.Path,
    experiments: Sequence[Experiment],
    kept: Sequence[Checkpoints],
    console: Console,
) -> int:
    """The newest step of which every seed has a whole checkpoint."""
    steps, problems = {}, []
    for experiment, checkpoints in zip(experiments, kept, strict=True):
        folder = seed_folder(run, experiment.config.seed)
        going_on.check_log(folder)
        _, damaged = checkpoints.newest_whole()
        problems += damaged
        if not checkpoints.steps and not damaged:
            going_on.check_nothing_lost(folder)
        # A seed that has none yet has its beginning.
        steps[experiment.config.seed] = checkpoints.steps or [0]
    for problem in problems:
        console.print(f"{problem}; it is not used.", markup=False, soft_wrap=True)
    common = set.intersection(*(set(s) for s in steps.values()))
    if not common:
        common = _common_of_those_that_go_on(kept)
    if not common or (common == {0} and problems):
        have = "; ".join(
            f"seed {k} has {', '.join(map(str, v))}" for k, v in steps.items()
        )
        raise ValueError(
            f"{run} has no step of which all seeds have a whole checkpoint: {have}. "
            f"Go on with each alone by segjax train EXPERIMENT --run RUN/seed-... "
            f"--resume, or start another --run."
        )
    step = max(common)
    going_on.check_steps(run, experiments[0].config, step)
    console.print(f"Going on from the checkpoints of step {step}.")
    for checkpoints in kept:
        # A seed that was ahead would not keep the steps that it makes again.
        checkpoints.forget_after(step)
    return step


def _common_of_those_that_go_on(kept: Sequence[Checkpoints]) -> set[int]:
    """Common steps where callbacks ended some seeds, which stay at their last step."""
    ended = [checkpoints.last or 0 for checkpoints in kept if checkpoints.ended]
    rest = [set(checkpoints.steps) for checkpoints in kept if not checkpoints.ended]
    common = set.intersection(*rest) if rest else {max(ended, default=0)}
    return {step for step in common if all(step >= last for last in ended)}


def recorders(
    stack: contextlib.ExitStack,
    experiments: Sequence[Experiment],
    folders: Sequence[pathlib.Path],
    kept: Sequence[Checkpoints],
    *,
    begin: Callable[..., Callable[[], None]],
    same: Sequence[Mapping[str, Any]],
    first: int,
    flags: Mapping[str, Any],
    console: Console,
) -> list[Recorder]:
    """A recorder a seed; only the first one shows a bar.

    Args:
        stack: Closes the logs.
        experiments: Of the seeds.
        folders: Of their runs.
        kept: Their checkpoints.
        begin: `(run, experiment, *, flags, resumed_with) -> function` that writes
            `run.json`.
        same: What `going_on.check_same` returned of each.
        first: Updates done before.
        flags: What the experiments were built from besides the seed.
        console: Where to print.
    """
    evaluate = loop.evaluator(experiments[0])
    recorders = []
    parts = zip(experiments, folders, kept, same, strict=True)
    for e, folder, checkpoints, with_ in parts:
        leads = folder is folders[0]
        log = RunLog(
            folder,
            config=e.config,
            first_step=first,
            console=console if leads else _without_bar(console),
            name=f"Seed {e.config.seed}",
            heartbeat=30.0 if leads else 0.0,
        )
        stack.enter_context(log)
        gather = digests.first_steps(folder, first=first)
        own_flags = dict(flags) | {"seed": e.config.seed}
        own = begin(folder, e, flags=own_flags, resumed_with=with_)
        save = saved_model.writer(e, folder)
        recorders.append(
            Recorder(e, checkpoints, log, evaluate, gather, save, begin_run=own)
        )
    return recorders


def _without_bar(console: Console) -> Console:
    """Where the other seeds print while the first shows the bar."""
    if not console.is_terminal:
        return console
    return Console(file=_Above(console), highlight=False)


class _Above(io.StringIO):
    """A file whose lines a console prints above its bar."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def write(self, text: str) -> int:
        """Prints a line, which comes as a whole."""
        self._console.print(text.removesuffix("\n"), markup=False, soft_wrap=True)
        return len(text)
