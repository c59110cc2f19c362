"""`run.json`: what is needed to repeat a run, and every time it was resumed."""

import datetime
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from segjax.errors import UserError
from segjax.files import writing
from segjax.run_folder import schema, signature
from segjax.run_folder.environment import code_digests, run_environment
from segjax.run_folder.errors import saving
from segjax.run_folder.lock import LOCK

SCRIPT = "experiment.py"
"""The run folder's copy of the script."""
_FIRST_FILES = {LOCK, SCRIPT, f".{SCRIPT}.tmp", ".run.json.tmp"}


def open_folder(
    run: pathlib.Path, *, resume: bool, script: pathlib.Path | None = None
) -> None:
    """Creates a run folder, or checks that there is one to resume.

    Args:
        run: The run folder.
        resume: Whether to continue its run.
        script: The file that defines the experiment. It may be the only one in a new
            run folder: see `write_script`.

    Raises:
        ValueError: If the folder has a run and `resume` is False, or the other way
            round.
    """
    started = (run / "run.json").exists()
    if resume and not started:
        raise UserError(
            f"--resume needs a run to continue, {run} has none. "
            f"Leave --resume out to start one there."
        )
    if started and not resume:
        raise UserError(
            f"{run} has a run already. Continue it by --resume, "
            f"or choose another folder by --run."
        )
    if not resume and not is_free(run, script):
        raise UserError(
            f"{run} is not empty and no run. Choose another folder by --run."
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"--run needs a folder, {run} is or lies under a file. Choose another."
        ) from error


def write_script(run: pathlib.Path, text: str) -> None:
    """Creates a new run folder with a script that segjax wrote itself.

    Raises:
        ValueError: If the folder is not free.
    """
    open_folder(run, resume=False)
    with saving(run / SCRIPT):
        writing.write_bytes(run / SCRIPT, text.encode())


def is_free(run: pathlib.Path, script: pathlib.Path | None = None) -> bool:
    """Returns whether a folder can be used for a new run.

    A run that was killed while it wrote its first files leaves its lock, and perhaps
    some of them. Without `run.json` it has not trained. The script to train may lie in
    the folder already.
    """
    found = {p.name for p in run.iterdir()} if run.is_dir() else set()
    if script is not None and script.absolute() == (run / SCRIPT).absolute():
        found -= {SCRIPT}
    return not found or (LOCK in found and found <= _FIRST_FILES)


def was_killed_at_start(run: pathlib.Path) -> bool:
    """Returns whether a run was killed before it wrote `run.json`."""
    return not (run / "run.json").exists() and (run / LOCK).exists()


def write_manifest(
    run: pathlib.Path,
    experiment: Any,
    *,
    flags: Mapping[str, Any],
    script: pathlib.Path | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Writes `run.json` of a new run, and a copy of the script.

    Args:
        run: The run folder.
        experiment: A `train.Experiment`.
        flags: The keywords it was built with.
        script: The file that defines it; None in a notebook.
        more: JSON values to add.
    """
    found = describe(experiment, flags=flags, script=script) | dict(more or {})
    if script is not None:
        with saving(run / SCRIPT):
            writing.write_bytes(run / SCRIPT, script.read_bytes())
        signed = signature.sign(run / SCRIPT, str(found["script"]))
        found |= {} if signed is None else {"signature": signed}
    write_json(run / "run.json", found)


def dataset_fingerprint(data: Any) -> str:
    """Returns the fingerprint of a run's data without how they are cropped."""
    dataset = getattr(data, "dataset", None)
    return getattr(dataset, "fingerprint", None) or data.fingerprint()


def describe(
    experiment: Any, *, flags: Mapping[str, Any], script: pathlib.Path | None
) -> dict[str, Any]:
    """Returns what is needed to repeat a run, as plain JSON values."""
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
            "dataset": dataset_fingerprint(data),
            "classes": list(data.classes),
            "examples": {split: data.num_examples(split) for split in data.splits},
            "skip_corrupt": getattr(data, "skip_corrupt", 0),
        },
        "code": code_digests(script),
        **run_environment(),
        "resumes": [],
    }


def append_resume(
    run: pathlib.Path,
    *,
    step: int,
    flags: Mapping[str, Any],
    script: pathlib.Path | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Adds the time, flags, code and environment of a resume to `run.json`.

    Args:
        run: The run folder.
        step: The number of updates done before.
        flags: The keywords the experiment was built with this time.
        script: The file that defines it this time; as in the beginning unless given.
        more: JSON values to add.
    """
    found = schema.read(run / "run.json", schema.Manifest)
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
    """Writes JSON atomically: a reader sees the old file or the new one.

    NaN, the score of a class without pixels, becomes null: JSON has no NaN.
    """
    text = json.dumps(without_nan(value), indent=2, allow_nan=False)
    with saving(path):
        writing.write_bytes(path, f"{text}\n".encode())


def without_nan(value: Any) -> Any:
    """Replaces NaN and infinities in a JSON value by None."""
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
