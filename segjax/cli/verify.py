"""`segjax verify RUN [--first K]`: replays a run's first updates and compares them."""

import collections
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from segjax import data, terminal
from segjax import train as training
from segjax.cli import process, runs, usage
from segjax.errors import UserError

DIFFERS = 1
"""The exit code of a run that does not repeat."""

_COMPARED = {
    "initialization": "parameters, state, key",
    "data": "fingerprint, raw batches",
    "augmentation": "augmented batches",
    "arithmetic": "loss, gradients, parameters",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Flags of `segjax verify` beside those of the experiment.

    Attributes:
        first: The number of updates to replay; by default all that have digests.
    """

    first: int | None = None


def main(args: Sequence[str]) -> None:
    """Replays a run's first updates and prints "equal", or which stream differs first.

    Raises:
        ValueError: If the folder has no run, or one without digests.
        SystemExit: With code 1 if something differs.
    """
    usage.print_if_asked(
        args,
        "segjax verify RUN",
        VerifyOptions,
        runs.TrustOptions,
        note=usage.OF_EXPERIMENT,
    )
    folder = runs.folder_argument(args, "verify")
    manifest = runs.manifest_of(folder)
    recorded = _digests(folder, manifest)
    if "xla_gpu_deterministic_ops=true" in manifest["xla_flags"]:
        process.use_deterministic_operations()
    experiment, options = runs.rebuild(
        folder, manifest, VerifyOptions, args[1:], prog=f"segjax verify {folder}"
    )
    experiment = _with_options(experiment, manifest)
    steps = _steps(options.first, recorded["steps"], folder)
    for note in _notes(folder, manifest, experiment):
        print(f"note: {note}", file=sys.stderr)
    replayed = training.replay(
        experiment, steps=steps, processes=manifest.get("processes", 1)
    )
    found = _differences(manifest, experiment, replayed)
    console = terminal.console()
    console.print(_table(found, f"{folder.name}: updates 1 to {steps}, replayed"))
    if not found:
        console.print("equal")
        return
    reason = _reason(found[0], manifest, experiment, replayed)
    differs = f"differs: {found[0].stream}. {reason}"
    console.print(differs, soft_wrap=True)
    sys.exit(DIFFERS)


def _with_options(
    experiment: training.Experiment, manifest: Mapping[str, Any]
) -> training.Experiment:
    """Applies the fault options of the run's `segjax train` to the experiment."""
    skipped = manifest["config"].get("skip_nonfinite", 0)
    config = dataclasses.replace(experiment.config, skip_nonfinite=skipped)
    corrupt = manifest["data"].get("skip_corrupt", 0)
    pipeline = experiment.data
    if corrupt and isinstance(pipeline, data.Pipeline):
        pipeline = dataclasses.replace(pipeline, skip_corrupt=corrupt)
    return dataclasses.replace(experiment, config=config, data=pipeline)


def _notes(
    folder: pathlib.Path, manifest: Mapping[str, Any], experiment: training.Experiment
) -> Iterator[str]:
    """Lists differences of the environment that may explain different numbers."""
    before, now = _flat(manifest), _flat(training.run_environment())
    settings = {k: str(v) for k, v in vars(experiment.config).items()}
    now |= {**settings, "model": repr(experiment.model)}
    before |= {k: str(v) for k, v in manifest["config"].items()}
    before |= {"model": manifest["model"]}
    for name, value in now.items():
        if before.get(name, value) != value:
            yield f"{name}: {before[name] or 'none'} in the run, {value or 'none'} here"
    if "seeds_together" in manifest:
        seeds = ", ".join(map(str, manifest["seeds_together"]))
        yield f"seeds {seeds} were trained by one program, this one is replayed alone"
    script = manifest["script"] and pathlib.Path(manifest["script"])
    kept = manifest["code"].get("script")
    if kept and training.file_digest(folder / training.SCRIPT) != kept:
        yield f"{folder / training.SCRIPT} was changed after the run began"
    elif kept and training.file_digest(script) not in (kept, None):
        yield f"{script} has changed; the copy that the run kept is replayed"
    if manifest["code"].get("segjax", "") != training.code_digests(script)["segjax"]:
        commit = manifest["code"].get("commit", "")[:12]
        yield f"segjax is not the code of the run{commit and f' (commit {commit})'}"


def _digests(folder: pathlib.Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    if "digests" not in manifest:
        raise UserError(
            f"{folder} kept no digests: it ended before the first line of its log, or "
            f"is of an older segjax. Train again, into another --run."
        )
    found = manifest["digests"]
    if any(len(found[stream]) != found["steps"] for stream in training.STREAMS[1:]):
        raise UserError(
            f"{folder / 'run.json'} is damaged: its digests are not those of "
            f"{found['steps']} updates. Restore it."
        )
    return found


def _steps(asked: int | None, recorded: int, folder: pathlib.Path) -> int:
    if asked is not None and not 1 <= asked <= recorded:
        raise UserError(
            f"--first needs 1 to {recorded}, the updates whose digests {folder} kept, "
            f"got {asked}. Leave it out to replay them all."
        )
    return recorded if asked is None else asked


def _flat(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Flattens the environment in a manifest to one level."""
    flat = {k: str(v) for k, v in manifest.get("versions", {}).items()}
    flat |= {k: str(v) for k, v in manifest.get("jax", {}).items()}
    names = "processes cpu cores xla_flags compiler_options onednn"
    for name in names.split():
        if name in manifest:
            flat[name] = " ".join(str(manifest[name]).split())
    kinds = collections.Counter(d.partition(" ")[2] for d in manifest["devices"])
    return flat | {"devices": ", ".join(f"{n} x {kind}" for kind, n in kinds.items())}


def _differences(
    manifest: Mapping[str, Any],
    experiment: training.Experiment,
    replayed: Mapping[str, Any],
) -> list[training.Difference]:
    """Returns differences of digests, and of the fingerprint if batches are equal."""
    found = training.differences(manifest["digests"], replayed)
    changed = manifest["data"]["fingerprint"] != experiment.data.fingerprint()
    if changed and "data" not in [d.stream for d in found]:
        found.append(training.Difference("data", None, "fingerprint"))
    return sorted(found, key=lambda d: training.STREAMS.index(d.stream))


def _table(found: Sequence[training.Difference], title: str) -> Table:
    table = Table("stream", "compared", "result", "step", title=Text(title))
    table.title_justify = "left"
    first = {d.stream: d for d in found}
    for stream, compared in _COMPARED.items():
        difference = first.get(stream)
        if difference is None:
            table.add_row(stream, compared, Text("equal", "green"), "")
        else:
            step = "" if difference.step is None else str(difference.step)
            differs = Text(f"differs: {difference.what}", "red")
            table.add_row(stream, compared, differs, step)
    return table


def _reason(
    difference: training.Difference,
    manifest: Mapping[str, Any],
    experiment: training.Experiment,
    replayed: Mapping[str, Any],
) -> str:
    """Returns the most likely cause of a difference; earlier streams are equal."""
    if difference.stream == "initialization":
        seed, was = experiment.config.seed, manifest["seed"]
        if seed != was:
            return f"The seed is {seed}, that of the run was {was}."
        return "The seed is the same: the model or a version is another."
    if difference.stream == "data":
        if manifest["data"]["fingerprint"] == experiment.data.fingerprint():
            return "The fingerprint is the same: what reads the data is another."
        return "The data's fingerprint differs: a file, or how it is read, was changed."
    others = _flat(manifest)["devices"] != _flat(training.run_environment())["devices"]
    if difference.stream == "augmentation":
        return "The batches are equal as read: the augmentation is another" + (
            ", or rounds otherwise on other devices." if others else "."
        )
    recorded, step = manifest["digests"], (difference.step or 1) - 1
    there, here = (d["arithmetic"][step]["loss"] for d in (recorded, replayed))
    fact = f"The loss of update {step + 1} was {there:.9g} and is {here:.9g}"
    if there == here:
        fact = f"The loss of update {step + 1} is equal, but not its {difference.what}"
    if others:
        return f"{fact}: other devices split sums, and so round, otherwise."
    if recorded["program"] == replayed["program"]:
        return f"{fact}: the same program, on other cores or under other flags."
    return f"{fact}: the step is another program, by its code, flags or versions."
