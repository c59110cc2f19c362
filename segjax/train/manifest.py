"""The run folder: who may write it, and what `run.json` says of the run."""

import datetime
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from segjax import run_files
from segjax.files import writing
from segjax.train import ownership
from segjax.train.config import Experiment
from segjax.train.environment import code_digests, run_environment
from segjax.train.lock import LOCK
from segjax.train.saving import saving

SCRIPT = "experiment.py"
"""The run folder's copy of the script."""
_FIRST_FILES = {LOCK, SCRIPT, f".{SCRIPT}.tmp", ".run.json.tmp"}


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
    if not resume and not is_free(run):
        raise ValueError(
            f"{run} is not empty and no run. Choose another folder by --run."
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"--run needs a folder, {run} is or lies under a file. Choose another."
        ) from error


def is_free(run: pathlib.Path) -> bool:
    """Whether a folder is there for a new run.

    One that was killed while it wrote its first files has left its lock, and perhaps
    some of them: what has no `run.json` never trained.
    """
    found = {p.name for p in run.iterdir()} if run.is_dir() else set()
    return not found or (LOCK in found and found <= _FIRST_FILES)


def beginning(
    run: pathlib.Path,
    experiment: Experiment,
    *,
    resumed_at: int | None,
    flags: Mapping[str, Any],
    script: pathlib.Path | None,
    more: Mapping[str, Any] | None = None,
    resumed_with: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """What writes `run.json` of a new run, or adds a resume to it, when called.

    Args:
        run: The run folder.
        experiment: What will be trained.
        resumed_at: Updates done before; None for a new run.
        flags: What the experiment was built from.
        script: Where it was defined; None in a notebook.
        more: JSON values to add to the manifest of a new run.
        resumed_with: JSON values to add to the note of a resume.
    """
    if resumed_at is not None:
        return lambda: note_resume(
            run, step=resumed_at, flags=flags, script=script, more=resumed_with
        )
    return lambda: begin_run(run, experiment, flags=flags, script=script, more=more)


def begin_run(
    run: pathlib.Path,
    experiment: Experiment,
    *,
    flags: Mapping[str, Any],
    script: pathlib.Path | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Writes `run.json`, and keeps a copy of the script, from which the run is rebuilt.

    Args:
        run: The run folder, new.
        experiment: What will be trained.
        flags: What it was built from.
        script: Where it was defined; none in a notebook.
        more: JSON values to add.
    """
    found = manifest(experiment, flags=flags, script=script) | dict(more or {})
    if script is not None:
        with saving(run / SCRIPT):
            writing.replace(run / SCRIPT, script.read_bytes())
        signature = ownership.signature(run / SCRIPT, str(found["script"]))
        found |= {} if signature is None else {"signature": signature}
    write_json(run / "run.json", found)


def manifest(
    experiment: Experiment, *, flags: Mapping[str, Any], script: pathlib.Path | None
) -> dict[str, Any]:
    """What a reader needs to repeat the run, as plain JSON values."""
    data = experiment.data
    return {
        "started": _now(),
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
            "skip_corrupt": getattr(data, "skip_corrupt", 0),
        },
        "code": code_digests(script),
        **run_environment(),
        "resumes": [],
    }


def note_resume(
    run: pathlib.Path,
    *,
    step: int,
    flags: Mapping[str, Any],
    script: pathlib.Path | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Adds to `run.json` when, where and with what a run went on.

    Args:
        run: The run folder.
        step: Updates done before.
        flags: What the experiment was built from this time.
        script: Where it was defined this time; as in the beginning unless given.
        more: JSON values to add.
    """
    found = run_files.read(run / "run.json", run_files.Manifest)
    if script is None and found["script"] is not None:
        script = pathlib.Path(found["script"])
    resume = {
        "step": step,
        "time": _now(),
        "command": shlex.join(sys.argv),
        "flags": {name: _plain(value) for name, value in flags.items()},
        "code": code_digests(script),
        **run_environment(),
        **(more or {}),
    }
    found["resumes"] = [*found.get("resumes", []), resume]
    write_json(run / "run.json", found)


def write_json(path: pathlib.Path, value: Mapping) -> None:
    """Writes atomically: a reader sees the old file or the new one.

    NaN, the score of a class that was never seen, becomes null: JSON has no NaN.
    """
    text = json.dumps(without_nan(value), indent=2, allow_nan=False)
    with saving(path):
        writing.replace(path, f"{text}\n".encode())


def without_nan(value: Any) -> Any:
    """The same JSON value with None in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
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


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
