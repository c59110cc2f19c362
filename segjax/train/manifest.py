"""The run folder: who may write it, and what it says of the run."""

import datetime
import json
import math
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax

from segjax.train.config import Experiment

_PACKAGES = (
    "segjax jax jaxlib flax optax orbax-checkpoint grain tensorflow-datasets numpy"
)


SCRIPT = "experiment.py"
"""The run folder's copy of the script."""


def open_run(run: pathlib.Path, *, resume: bool) -> None:
    """Makes a run folder, or checks that there is one to go on with.

    Raises:
        ValueError: If the folder has a run and `resume` is False, or the other way
            round.
    """
    started = (run / "run.json").exists()
    if resume and not started:
        raise ValueError(
            f"--resume needs a run to go on with, {run} has none. "
            f"Leave --resume out to start one there."
        )
    if started and not resume:
        raise ValueError(
            f"{run} has a run already. Go on with it by --resume, "
            f"or choose another folder by --run."
        )
    if not resume and run.is_dir() and any(run.iterdir()):
        raise ValueError(
            f"{run} is not empty and no run. Choose another folder by --run."
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"--run needs a folder, {run} is or lies under a file. Choose another."
        ) from error


def begin_run(
    run: pathlib.Path,
    experiment: Experiment,
    *,
    flags: Mapping[str, Any],
    script: pathlib.Path | None,
) -> None:
    """Writes `run.json`, and keeps a copy of the script, from which the run is rebuilt.

    Args:
        run: The run folder, new.
        experiment: What will be trained.
        flags: What it was built from.
        script: Where it was defined; none in a notebook.
    """
    if script is not None:
        shutil.copyfile(script, run / SCRIPT)
    write_json(run / "run.json", manifest(experiment, flags=flags, script=script))


def manifest(
    experiment: Experiment, *, flags: Mapping[str, Any], script: pathlib.Path | None
) -> dict[str, Any]:
    """What a reader needs to repeat the run, as plain JSON values."""
    data = experiment.data
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "script": _plain(script),
        "flags": {name: _plain(value) for name, value in flags.items()},
        "seed": experiment.config.seed,
        "config": {k: _plain(v) for k, v in vars(experiment.config).items()},
        "model": repr(experiment.model),
        "data": {
            "fingerprint": data.fingerprint(),
            "classes": list(data.classes),
            "examples": {split: data.num_examples(split) for split in data.splits},
        },
        "code": _git(pathlib.Path.cwd() if script is None else script.parent),
        "versions": {"python": platform.python_version(), **_versions()},
        "devices": [
            f"{d.platform}:{d.id} {d.device_kind}" for d in jax.local_devices()
        ],
        "cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def write_json(path: pathlib.Path, value: Mapping) -> None:
    """Writes atomically: a reader sees the old file or the new one.

    NaN, the score of a class that was never seen, becomes null: JSON has no NaN.
    """
    part = path.with_name(path.name + ".part")
    text = json.dumps(without_nan(value), indent=2, allow_nan=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def without_nan(value: Any) -> Any:
    """The same JSON value with None in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, pathlib.Path):
        return str(value.absolute())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return repr(value)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES.split():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git(folder: pathlib.Path) -> dict[str, Any]:
    """Commit and dirty state of the checkout at a folder; empty outside one."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
