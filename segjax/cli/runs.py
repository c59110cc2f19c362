"""Loads the experiment and the state of a run folder."""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tyro

import segjax
from segjax import inference, models
from segjax import train as training
from segjax.cli import flags, scripts
from segjax.errors import UserError
from segjax.run_folder import schema

Which = Literal["best", "last"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrustOptions:
    """The flag of all commands that execute a run's script.

    Attributes:
        trust: Execute the run's experiment.py although this user's segjax did not
            write it.
    """

    trust: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """A loaded run.

    Attributes:
        folder: The run folder.
        manifest: Content of its `run.json`.
        experiment: The experiment, built again from the run's script and flags.
        state: The state of the requested checkpoint.
        options: The flags of the subcommand.
    """

    folder: pathlib.Path
    manifest: Mapping[str, Any]
    experiment: training.Experiment
    state: training.TrainState
    options: Any


def load(folder: pathlib.Path, options: type, args: Sequence[str], *, prog: str) -> Run:
    """Builds a run's experiment, by executing its script, and loads its state.

    Args:
        folder: The run folder.
        options: A dataclass of the subcommand's flags, with `checkpoint: Which`.
        args: The subcommand's flags. Flags of the experiment, such as --source for data
            that moved, override those of the run.
        prog: The command, for messages.

    Raises:
        ValueError: If the folder has no run, no script or no intact checkpoint, or the
            data have another number of classes.
    """
    manifest = manifest_of(folder)
    experiment, chosen = rebuild(folder, manifest, options, args, prog=prog)
    _check_classes(experiment.data.classes, manifest["data"]["classes"], folder)
    state = state_of(experiment, folder, chosen.checkpoint)
    return Run(folder, manifest, experiment, state, chosen)


def _check_classes(
    found: Sequence[str], trained: Sequence[str], folder: pathlib.Path
) -> None:
    """Says how classes are called in other data; ValueError if their numbers differ."""
    if len(found) != len(trained):
        raise UserError(
            f"These data have {len(found)} classes ({', '.join(found)}), {folder} was "
            f"trained with {len(trained)} ({', '.join(trained)}). Name all of them in "
            f"the data's classes.txt, in this order."
        )
    if list(found) != list(trained):
        print(
            f"note: the classes {', '.join(found)} are scored as those of {folder}: "
            f"{', '.join(trained)}.",
            file=sys.stderr,
        )


def rebuild(
    folder: pathlib.Path,
    manifest: Mapping[str, Any],
    options: type,
    args: Sequence[str],
    *,
    prog: str,
) -> tuple[training.Experiment, Any]:
    """Builds a run's experiment from its script and flags.

    Prints on standard error which script it executes.

    Args:
        folder: The run folder.
        manifest: Its `run.json`.
        options: A dataclass of the subcommand's flags.
        args: Flags of the subcommand, and of the experiment, which override those of
            the run.
        prog: The command, for messages.

    Returns:
        (the experiment, the subcommand's options).

    Raises:
        ValueError: If the script is not this user's own (`training.is_trusted`) and
            --trust is not given.
    """
    build, keywords, chosen = parse(
        folder, manifest, manifest["flags"], options, args, prog=prog
    )
    return scripts.construct(build, keywords), chosen


def parse(
    folder: pathlib.Path,
    manifest: Mapping[str, Any],
    kept: Mapping[str, Any],
    options: type,
    args: Sequence[str],
    *,
    prog: str,
) -> tuple[scripts.Build, dict[str, Any], Any]:
    """Loads a run's script and parses its flags; see `rebuild`.

    Args:
        folder: The run folder.
        manifest: Its `run.json`.
        kept: Flags of the run, as in `run.json`.
        options: A dataclass of the subcommand's flags.
        args: Flags of the subcommand, and of the experiment, which override `kept`.
        prog: The command, for messages.

    Returns:
        (the experiment function, its keywords, the subcommand's options).
    """
    if not _may_execute(folder, manifest, options, args, prog=prog):
        sys.exit(0)
    build = _load_script(folder, manifest)
    defaults = scripts.from_json(build, kept)
    keywords, chosen = scripts.parse(
        build, options, args, prog=prog, defaults=defaults, more=[TrustOptions]
    )
    return build, keywords, chosen


def latest_flags(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags of the last resume, else those of the start."""
    for resume in reversed(manifest.get("resumes", [])):
        if isinstance(resume.get("flags"), dict):
            return resume["flags"]
    return manifest["flags"]


def _may_execute(
    folder: pathlib.Path,
    manifest: Mapping[str, Any],
    options: type,
    args: Sequence[str],
    *,
    prog: str,
) -> bool:
    """Whether to execute the script; prints --help without it if it is not trusted.

    Raises:
        ValueError: If the script must not be executed.
    """
    script = folder / training.SCRIPT
    if "--trust" in args or training.is_trusted(script, manifest):
        print(f"note: executing {script}.", file=sys.stderr)
        return True
    if {"-h", "--help"} & set(args):
        print(
            f"note: without --trust the flags of {script} are not shown.",
            file=sys.stderr,
        )
        command = dataclasses.make_dataclass(
            "command", [("options", options), ("trust", TrustOptions)]
        )
        flags.read(tyro.conf.OmitArgPrefixes[command], args, prog=prog)
        return False
    raise UserError(
        f"This command executes {script}, which your segjax did not write, or which "
        f"was changed since. Read it, then give --trust."
    )


def _load_script(folder: pathlib.Path, manifest: Mapping[str, Any]) -> scripts.Build:
    original = pathlib.Path(manifest["script"] or folder)
    return scripts.load(folder / training.SCRIPT, beside=original.parent)


def experiment_of(folder: pathlib.Path) -> training.Experiment:
    """Builds a run's experiment with the run's flags, by executing its script.

    Raises:
        ValueError: If the folder has no run or no script.
    """
    manifest = manifest_of(folder)
    build = _load_script(folder, manifest)
    return scripts.construct(build, scripts.from_json(build, manifest["flags"]))


def load_model(folder: pathlib.Path, *, trust: bool) -> inference.Model:
    """Loads a run's model; executes its script only if the model needs it.

    Args:
        folder: The run folder.
        trust: Whether the script may be executed.

    Raises:
        inference.NeedsCodeError: If it must be, and `trust` is False.
        ValueError: See `segjax.load`.
    """
    try:
        return segjax.load(folder)
    except inference.NeedsCodeError:
        if not trust:
            raise
    script = folder / inference.SCRIPT
    print(f"note: executing {script}, whose code the model needs.", file=sys.stderr)
    return segjax.load(folder, trust=True)


def manifest_of(folder: pathlib.Path) -> dict[str, Any]:
    """Reads `run.json`; ValueError if the folder has none, or no script."""
    if not (folder / "run.json").exists():
        raise UserError(
            f"A run folder is needed, {folder} has no run.json. "
            f"Make one by segjax train EXPERIMENT.py --run {folder}."
        )
    if not (folder / training.SCRIPT).is_file():
        raise UserError(
            f"{folder} was not made by a script, so its experiment cannot be built "
            f"again. Add its script as {folder / training.SCRIPT}."
        )
    return schema.read(folder / "run.json", schema.Manifest)


def folder_argument(args: Sequence[str], subcommand: str) -> pathlib.Path:
    """Returns the run folder, the first argument; ValueError if it is missing."""
    if not args or args[0].startswith("-"):
        raise UserError(
            f"segjax {subcommand} needs a run folder first. "
            f"Try segjax {subcommand} runs/demo."
        )
    return pathlib.Path(args[0])


def summary(experiment: training.Experiment) -> str:
    """Returns a table of parameters and FLOPs for the shape of a training batch."""
    shape = (1, *training.data_spec(experiment.data)["image"][1])
    return str(models.summarize(experiment.model, shape))


def state_of(
    experiment: training.Experiment, run: pathlib.Path, which: Which | int = "best"
) -> training.TrainState:
    """Loads the state of a run's best or last checkpoint, or of a given step.

    Raises:
        ValueError: If there is none yet, it is damaged, or of another model.
    """
    with training.open_checkpoints(experiment, run) as checkpoints:
        step = which if isinstance(which, int) else checkpoints.pick(which)
        if not isinstance(which, int) and step is not None:
            _check_kept(experiment, run, checkpoints.steps, which)
        if step is None:
            _, problems = checkpoints.newest_intact()
            raise UserError(
                f"{problems[0]}. Train again into another --run."
                if problems
                else f"{run} has no checkpoint yet. Train it: --run {run} --resume."
            )
        spec = training.data_spec(experiment.data)
        like = training.abstract_state_of(experiment, spec)
        return checkpoints.restore(step, like)


def _check_kept(
    experiment: training.Experiment,
    run: pathlib.Path,
    steps: Sequence[int],
    which: Which,
) -> None:
    """Raises a ValueError if a later or better checkpoint of the run is missing."""
    last = max(steps)
    reached = _reached(run / "result.json")
    if reached > last:
        raise UserError(
            f"{run / 'checkpoints' / str(reached)}, with which the run ended, is "
            f"missing. Restore it, or continue by segjax train ... --resume."
        )
    best = _best_logged(experiment, run / "metrics.jsonl") if which == "best" else None
    # A later one than the last is not yet saved where training was killed.
    if best is not None and best not in steps and best < last:
        raise UserError(
            f"{run / 'checkpoints' / str(best)}, the best checkpoint by the log, is "
            f"missing. Restore it, or use the latest by --checkpoint last."
        )


def _reached(path: pathlib.Path) -> int:
    """Returns the last step of a finished run, 0 if it is not finished."""
    if not path.exists():
        return 0
    result = schema.read(path, schema.Result)
    return result["stopped"]["step"] if "stopped" in result else result.get("steps", 0)


def _best_logged(experiment: training.Experiment, path: pathlib.Path) -> int | None:
    config = experiment.config
    split = training.evaluation_split(experiment.data.splits)
    sign = 1.0 if config.mode == "max" else -1.0
    scores = {
        record["step"]: sign * record[config.monitor]
        for record in schema.read_log(path)
        if record["kind"] == "eval"
        and record.get("split") == split
        and not record.get("final")
        and isinstance(record.get(config.monitor), int | float)
    }
    return max(scores, key=lambda step: (scores[step], step), default=None)
