"""Several seeds of one experiment, trained by one program, each into its own run."""

import contextlib
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from segjax.train import going_on, manifest, seed_folders
from segjax.train.config import Experiment
from segjax.train.loop import fit, leaving
from segjax.train.signals import stop_requests


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
    """Trains one experiment under several seeds at once.

    Each seed has the initialisation, data order, crops and augmentation of a run of
    its own, and its folder, RUN/seed-SEED, is a run folder like any other. Seeds are
    split over the devices, batches are not; `together` says how one program makes the
    steps of several seeds, and how near they come to those of a run of their own. A
    seed that a callback ends stops by itself; the others go on.

    Args:
        experiments: The same experiment under different seeds; each reads its own
            data.
        run: The folder of the seeds' runs; new, unless `resume`.
        resume: Go on from the newest step of which every seed has a whole checkpoint.
        flags: What the experiments were built from besides the seed.
        script: Where they were defined; each run keeps a copy of it.
        console: Where to print; standard output unless given.
        allow_changes: As `train` has it.

    Returns:
        What `result.json` of each seed holds.

    Raises:
        ValueError: As `train`; or if two experiments have the same seed, or build
            other programs (initialization, step or evaluation).
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
        first = 0
        if resume:
            first = seed_folders.common_step(run, experiments, kept, console)
        same = [
            going_on.check_same(
                folder, experiment, script=script, allow_changes=allow_changes
            )
            if resume and seed_folders.has_run(folder)
            else {}
            for experiment, folder in zip(experiments, folders, strict=True)
        ]
        recorders = seed_folders.recorders(
            stack,
            experiments,
            folders,
            kept,
            begin=lambda folder, experiment, **more: manifest.beginning(
                folder,
                experiment,
                resumed_at=first if resume and seed_folders.has_run(folder) else None,
                script=script,
                more={"seeds_together": [e.config.seed for e in experiments]},
                **more,
            ),
            same=same,
            first=first,
            flags=flags or {},
            console=console,
        )
        stop = stack.enter_context(stop_requests())
        states = fit(experiments, recorders, first=first, stop=stop)
        with leaving(recorders[0], experiments[0].config.steps):
            results = [
                recorder.final(state)
                for recorder, state in zip(recorders, states, strict=True)
            ]
    seconds = {"seconds": round(time.perf_counter() - began, 1)}
    for folder, result in zip(folders, results, strict=True):
        manifest.write_json(folder / "result.json", result | seconds)
    return [result | seconds for result in results]
