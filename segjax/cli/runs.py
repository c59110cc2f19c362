"""Run folders from the outside: the experiment and the state that they hold."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from segjax import models
from segjax import train as training
from segjax.cli import scripts

Which = Literal["best", "last"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        folder: Where it is.
        experiment: Built again from the script and the flags that the run kept.
        state: Of the checkpoint asked for.
        options: The verb's own flags.
    """

    folder: pathlib.Path
    experiment: training.Experiment
    state: training.TrainState
    options: Any


def load(folder: pathlib.Path, options: type, args: Sequence[str], *, prog: str) -> Run:
    """Rebuilds a run's experiment and loads its state.

    Args:
        folder: The run folder.
        options: A dataclass of the verb's flags, with `checkpoint: Which`.
        args: The verb's flags; flags of the experiment, such as --source for data
            that moved, take the place of what the run kept.
        prog: The command, for messages.

    Raises:
        ValueError: If the folder holds no run, no script or no whole checkpoint.
    """
    experiment, chosen = rebuild(folder, manifest_of(folder), options, args, prog=prog)
    state = state_of(experiment, folder, chosen.checkpoint)
    return Run(folder, experiment, state, chosen)


def rebuild(
    folder: pathlib.Path,
    manifest: Mapping[str, Any],
    options: type,
    args: Sequence[str],
    *,
    prog: str,
) -> tuple[training.Experiment, Any]:
    """Builds a run's experiment from the script and the flags that the run kept.

    Args:
        folder: The run folder.
        manifest: Its `run.json`.
        options: A dataclass of the verb's flags.
        args: Flags, those of the experiment included; they take the place of the
            run's.
        prog: The command, for messages.

    Returns:
        (the experiment, the verb's options).
    """
    original = pathlib.Path(manifest["script"] or folder)
    build = scripts.load(folder / training.SCRIPT, beside=original.parent)
    kept = scripts.from_json(build, manifest["flags"])
    keywords, chosen = scripts.parse(build, options, args, prog=prog, defaults=kept)
    return build(**keywords), chosen


def experiment_of(folder: pathlib.Path) -> training.Experiment:
    """A run's experiment with the flags that the run kept, by executing its script.

    Raises:
        ValueError: If the folder holds no run, or no script.
    """
    manifest = manifest_of(folder)
    original = pathlib.Path(manifest["script"] or folder)
    build = scripts.load(folder / training.SCRIPT, beside=original.parent)
    return build(**scripts.from_json(build, manifest["flags"]))


def manifest_of(folder: pathlib.Path) -> dict[str, Any]:
    """Reads `run.json`. Raises ValueError if the folder has none, or no script."""
    if not (folder / "run.json").is_file():
        raise ValueError(
            f"A run folder is needed, {folder} has no run.json. "
            f"Make one by segjax train EXPERIMENT.py --run {folder}."
        )
    if not (folder / training.SCRIPT).is_file():
        raise ValueError(
            f"{folder} was not made by a script, so its experiment cannot be built "
            f"again. Add its script as {folder / training.SCRIPT}."
        )
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def folder_argument(args: Sequence[str], verb: str) -> pathlib.Path:
    """The run folder, which comes first. Raises ValueError if it is missing."""
    if not args or args[0].startswith("-"):
        raise ValueError(
            f"segjax {verb} needs a run folder first. Try segjax {verb} runs/demo."
        )
    return pathlib.Path(args[0])


def summary(experiment: training.Experiment) -> str:
    """Parameters and FLOPs at the shape of a training batch, as a table."""
    shape = (1, *training.data_spec(experiment.data)["image"][1])
    return str(models.summarize(experiment.model, shape))


def state_of(
    experiment: training.Experiment, run: pathlib.Path, which: Which = "best"
) -> training.TrainState:
    """The state of a run's best or last checkpoint.

    Raises:
        ValueError: If there is none yet, it is damaged, or of another model.
    """
    with training.open_checkpoints(experiment, run) as checkpoints:
        step = checkpoints.best if which == "best" else checkpoints.last
        if step is None:
            _, problems = checkpoints.newest_whole()
            raise ValueError(
                f"{problems[0]}. Train again into another --run."
                if problems
                else f"{run} has no checkpoint yet. Train it: --run {run} --resume."
            )
        spec = training.data_spec(experiment.data)
        like = training.abstract_state_of(experiment, spec)
        return checkpoints.restore(step, like)
