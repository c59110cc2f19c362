"""Reads the results of many runs, and groups seeds and folds of one experiment."""

import csv
import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segjax.errors import UserError
from segjax.run_folder import schema


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a finished run is, and what it scored.

    Attributes:
        folder: The run folder.
        experiment: Name of its script, without the suffix.
        script: Digest of its script; None if there is none.
        flags: The experiment's flags, without seed and fold.
        seed: The seed.
        fold: The flag --fold of experiments with cross-validation; None without it.
        monitor: The metric that chose the checkpoint.
        lower_is_better: Of that metric.
        split: The split that was scored.
        data: Fingerprint of the data set, whatever its crops.
        metrics: Scores by name.
        seconds: Time that training took.
    """

    folder: pathlib.Path
    experiment: str
    script: str | None
    flags: Mapping[str, Any]
    seed: int
    fold: int | None
    monitor: str
    lower_is_better: bool
    split: str
    data: str
    metrics: Mapping[str, float]
    seconds: float

    @property
    def row(self) -> dict[str, Any]:
        """One flat row: run, experiment, flags, seed, split, seconds, metrics."""
        fold = {} if self.fold is None else {"fold": self.fold}
        about = {"run": str(self.folder), "experiment": self.experiment}
        flags = {f"flag.{k}": v for k, v in self.flags.items()}
        tail = {"split": self.split, "seconds": self.seconds}
        return {**about, **flags, "seed": self.seed, **fold, **tail, **self.metrics}

    @property
    def pair(self) -> tuple[int, int]:
        """Seed and fold, by which runs of two groups are paired."""
        return self.seed, -1 if self.fold is None else self.fold


def find(folders: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Returns run folders, and those one level below a folder that is none itself.

    Raises:
        ValueError: If there is no run in a folder; the message has its name.
    """
    runs = []
    for folder in folders:
        inside = sorted(folder.glob("*/run.json"), key=_in_order)
        if (folder / "run.json").exists():
            runs.append(folder)
        elif inside:
            runs += [path.parent for path in inside]
        else:
            raise UserError(
                f"A run folder, or a folder of runs, is needed; {folder} has no "
                f"run.json. Train one: segjax train EXPERIMENT.py --run {folder}."
            )
    return list(dict.fromkeys(runs))


def read(folder: pathlib.Path) -> RunResult:
    """Reads run.json and result.json.

    Raises:
        ValueError: If the run is not finished, or a file is damaged.
    """
    path = folder / "result.json"
    if not path.exists():
        raise UserError(
            f"{folder} has no result.json: its training is not finished. Finish it by "
            f"--resume, or leave it out."
        )
    manifest = schema.read(folder / "run.json", schema.Manifest)
    result = schema.read(path, schema.Result)
    if not result.get("metrics"):
        raise UserError(f"{path} has no metrics: the run was stopped. Leave it out.")
    numbers = {
        k: math.nan if v is None else v
        for k, v in result["metrics"].items()
        if v is None or (isinstance(v, int | float) and not isinstance(v, bool))
    }
    config, flags = manifest["config"], dict(manifest["flags"])
    fold = flags.get("fold")
    if isinstance(fold, int):
        del flags["fold"]
    return RunResult(
        folder=folder,
        experiment=pathlib.Path(manifest["script"] or folder).stem,
        script=manifest["code"].get("script"),
        flags={k: v for k, v in flags.items() if k != "seed"},
        seed=manifest["seed"],
        fold=fold if isinstance(fold, int) else None,
        monitor=config.get("monitor", ""),
        lower_is_better=config.get("mode", "max") == "min",
        split=result.get("split", ""),
        data=manifest["data"]["dataset"],
        metrics=numbers,
        seconds=result.get("seconds", math.nan),
    )


def image_scores(run: RunResult, metric: str) -> dict[int, float]:
    """Reads one score of each image, which `segjax evaluate` wrote.

    Args:
        run: The run.
        metric: Its name.

    Returns:
        By position in the split; NaN where an image has no such score.

    Raises:
        ValueError: If the run was not evaluated, or its images have no such score.
    """
    path = run.folder / f"evaluation-{run.split}-best.csv"
    if not path.is_file():
        raise UserError(
            f"{path} is needed for scores of images. Write it: segjax evaluate "
            f"{run.folder}."
        )
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        if metric not in (rows.fieldnames or ()):
            some = [x for x in rows.fieldnames or () if "/" not in x]
            raise UserError(
                f"{path} has no {metric} of images, only {', '.join(some[3:])}."
            )
        try:
            return {int(row["index"]): float(row[metric] or "nan") for row in rows}
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path} is damaged. Write it again: segjax evaluate {run.folder}."
            ) from None


def grouped(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Groups runs that differ in seed and fold only.

    Returns:
        By name, in the order of the first run of each: the script, with the flags in
        which the groups of that script differ. Runs of a group by seed, then fold.

    Raises:
        ValueError: If a group has two runs with the same seed and fold.
    """
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        key = json.dumps([run.experiment, run.script, run.flags], sort_keys=True)
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.pair)
        for one, other in itertools.pairwise(group):
            if one.pair == other.pair:
                fold = "" if one.fold is None else f", and fold {one.fold}"
                raise UserError(
                    f"{one.folder} and {other.folder} are the same experiment with "
                    f"the same seed, {one.seed}{fold}. Leave one of them out."
                )
    names = _names([group[0] for group in groups.values()])
    return dict(zip(names, groups.values(), strict=True))


def _names(firsts: Sequence[RunResult]) -> list[str]:
    names = []
    for run in firsts:
        alike = [other for other in firsts if other.experiment == run.experiment]
        differing = [
            f"{flag} {_shown(value)}"
            for flag, value in run.flags.items()
            if any(other.flags.get(flag) != value for other in alike)
        ]
        names.append(", ".join([run.experiment, *differing]))
    # Equal names are of scripts that were edited.
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name} (script {str(run.script)[:6]})" if name in twice else name
        for name, run in zip(names, firsts, strict=True)
    ]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _in_order(path: pathlib.Path) -> tuple[int, str]:
    """seed-2 before seed-10."""
    name = path.parent.name
    number = name.rpartition("-")[2]
    return (int(number) if number.isdigit() else -1, name)
