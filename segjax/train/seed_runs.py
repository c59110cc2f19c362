"""Runs of several seeds: what they must share, their folders, where they resume."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from rich.console import Console

from segjax import multihost
from segjax.errors import UserError
from segjax.run_folder import manifest
from segjax.run_folder.resume import check_log, check_not_trained
from segjax.train.checkpoint import Checkpoints
from segjax.train.evaluate import make_eval_step
from segjax.train.experiment import Experiment, check_batch_size
from segjax.train.state import batch_spec, make_init
from segjax.train.step import as_step
from segjax.typing import Batch


def seed_folder(run: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns the run folder of one seed."""
    return run / f"seed-{seed}"


def check_experiments(
    experiments: Sequence[Experiment], run: pathlib.Path, *, resume: bool
) -> None:
    """Raises a ValueError unless these can be trained together, into this folder."""
    if jax.process_count() > 1:
        raise UserError(
            f"Seeds are trained by one process, got {jax.process_count()}. "
            f"Give each process seeds and a --run of its own, without --distributed."
        )
    seeds = [e.config.seed for e in experiments]
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"Each seed is trained once, got {seeds or 'none'}.")
    configs = [dataclasses.replace(e.config, seed=0) for e in experiments]
    if any(config != configs[0] for config in configs):
        raise UserError(
            "Experiments that are trained together differ in their seed only. "
            "Take steps, batch size and the rest from other flags than the seed."
        )
    # Evaluation splits a batch over all devices, as in a run of one seed.
    check_batch_size(experiments[0])
    folders = [seed_folder(run, seed) for seed in seeds]
    others = set(run.iterdir()) - set(folders) if run.is_dir() else set()
    if not resume and (others or not all(map(manifest.is_free, folders))):
        raise UserError(
            f"{run} is not empty. Continue its seeds by --resume, "
            f"or choose another folder by --run."
        )


def share_equal_data(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Replaces data that equal those of the first experiment by that same object."""
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


def resume_step(
    folders: Sequence[pathlib.Path], kept: Sequence[Checkpoints], console: Console
) -> int:
    """Returns the newest step of which every seed has an intact checkpoint.

    Later checkpoints are dropped. The console shows the step and damaged checkpoints.

    Raises:
        ValueError: If there is none, a log is damaged, or all checkpoints are missing.
    """
    problems, all_damaged = [], False
    for folder, checkpoints in zip(folders, kept, strict=True):
        multihost.run_on_first(functools.partial(check_log, folder))
        newest, damaged = checkpoints.newest_intact()
        problems += damaged
        all_damaged |= newest is None and bool(damaged)
        if newest is None and not damaged:
            multihost.run_on_first(functools.partial(check_not_trained, folder))
    common = _common_steps(kept)
    if not common or (common == {0} and all_damaged):
        raise UserError(_no_common_step(folders, kept, problems))
    for problem in problems:
        _print(console, f"{problem}; it is not used.")
    step = max(common)
    if any(checkpoints.steps for checkpoints in kept):
        several = "s" if len(kept) > 1 else ""
        _print(console, f"Continuing from the checkpoint{several} of step {step}.")
    else:
        _print(console, f"{folders[0]} ended before its first checkpoint; restarting.")
    for checkpoints in kept:
        checkpoints.drop_after(step)
    return step


def _common_steps(kept: Sequence[Checkpoints]) -> set[int]:
    """Steps that all seeds have; a seed without a checkpoint has step 0.

    Seeds that a callback stopped stay at their last step while others continue.
    """
    steps = [set(checkpoints.steps or [0]) for checkpoints in kept]
    if common := set.intersection(*steps):
        return common
    ended = [checkpoints.last or 0 for checkpoints in kept if checkpoints.ended]
    rest = [set(checkpoints.steps) for checkpoints in kept if not checkpoints.ended]
    common = set.intersection(*rest) if rest else {max(ended, default=0)}
    return {step for step in common if all(step >= last for last in ended)}


def _no_common_step(
    folders: Sequence[pathlib.Path],
    kept: Sequence[Checkpoints],
    problems: Sequence[str],
) -> str:
    if len(kept) == 1:
        return (
            f"{folders[0]} has no intact checkpoint to continue from: "
            f"{'; '.join(problems)}. Start another --run."
        )
    have = "; ".join(
        f"{folder.name} has {', '.join(map(str, checkpoints.steps)) or 'none'}"
        for folder, checkpoints in zip(folders, kept, strict=True)
    )
    return (
        f"{folders[0].parent} has no step of which all seeds have an intact "
        f"checkpoint: {have}. Continue each alone by segjax train EXPERIMENT --run "
        f"RUN/seed-... --resume, or start another --run."
    )


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def check_same_programs(
    experiments: Sequence[Experiment], row: Sequence[Batch]
) -> None:
    """Raises a ValueError if experiments differ in more than their seed.

    Compared are the programs of initialization, step and evaluation, not compiled.

    Args:
        experiments: Those of all seeds.
        row: The first host batch of each.
    """
    if len(experiments) < 2:
        return
    kinds = [_programs(e, batch) for e, batch in zip(experiments, row, strict=True)]
    for experiment, programs in zip(experiments[1:], kinds[1:], strict=True):
        for name, digest in programs.items():
            if digest != kinds[0][name]:
                raise UserError(
                    f"Experiments that are trained together differ in their seed "
                    f"only: the {name} of seed {experiment.config.seed} is another "
                    f"program than that of seed {experiments[0].config.seed}. Train "
                    f"it by itself, or take model, objective, optimizer, augment and "
                    f"metric from other flags than the seed."
                )


def _programs(experiment: Experiment, batch: Batch) -> dict[str, str]:
    """SHA-256 of each program of an experiment, by its purpose."""
    step = as_step(experiment.step(experiment))
    init = make_init(
        experiment.forward,
        experiment.optimizer,
        spec=batch_spec(batch),
        complete=step.init,
    )
    key = jax.random.key(0)
    state = jax.eval_shape(init, key)
    evaluate = make_eval_step(
        experiment.forward, experiment.objective, experiment.metric
    )
    spec = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}
    lowered = {
        "initialization": init.lower(key),
        "train step": jax.jit(step.update).lower(state, spec),
        "evaluation": jax.jit(evaluate).lower(
            jax.eval_shape(step.variables, state), spec
        ),
    }
    return {
        name: hashlib.sha256(program.as_text().encode()).hexdigest()
        for name, program in lowered.items()
    }
