"""Checks before a run is resumed; none of them changes a file."""

import pathlib
from typing import Any

from segjax.errors import UserError
from segjax.run_folder import schema
from segjax.run_folder.environment import file_digest
from segjax.run_folder.manifest import SCRIPT

_NAMES = {
    "data": "the data (fingerprint)",
    "script": "the script",
    "kept_script": f"the run's own {SCRIPT}",
}


def check_log(run: pathlib.Path) -> None:
    """Raises a ValueError if a line of `metrics.jsonl` is damaged, by its number."""
    schema.read_log(run / "metrics.jsonl")


def check_not_trained(run: pathlib.Path) -> None:
    """Raises a ValueError if a run without checkpoints was trained: they are missing.

    A run that was killed during its first save has an unfinished checkpoint, and may
    have logged the updates made meanwhile; one that never saved has logged nothing.
    """
    checkpoints = run / "checkpoints"
    unfinished = any(checkpoints.glob("*.part"))
    records = schema.read_log(run / "metrics.jsonl")
    trained = any(record["step"] > 0 for record in records) and not unfinished
    if trained or (run / "result.json").exists():
        raise UserError(
            f"{checkpoints} has no checkpoint, but {run} has been trained. Restore "
            f"the folder, or start another --run."
        )


def check_steps(run: pathlib.Path, *, total: int, done: int) -> None:
    """Raises a ValueError if a run has more updates already than it shall have."""
    if total < done:
        raise UserError(
            f"--steps is the total, and {run} has done {done} already, got {total}. "
            f"Give --steps {done} or more."
        )


def check_unchanged(
    run: pathlib.Path,
    experiment: Any,
    *,
    script: pathlib.Path | None,
    allow_changes: bool,
) -> dict[str, Any]:
    """Compares the data and the script with those of the last time a run was trained.

    Args:
        run: The run folder.
        experiment: A `train.Experiment`, the one to be trained now.
        script: The file that defines it; not compared if None.
        allow_changes: Accept differences.

    Returns:
        What to add to `resumes`: the current digests, and `changed`, `{name: [before,
        now]}` of those that differ.

    Raises:
        ValueError: If they differ and `allow_changes` is False, or `run.json` is
            damaged.
    """
    found = schema.read(run / "run.json", schema.Manifest)
    before = _digests(found)
    now = {
        "data": experiment.data.fingerprint(),
        "script": None if script is None else file_digest(script),
        "kept_script": file_digest(run / SCRIPT),
    }
    changed = {
        name: [was, now[name]]
        for name, was in before.items()
        # A missing script is reported by the commands that need it.
        if was is not None and now[name] is not None and was != now[name]
    }
    if changed and not allow_changes:
        what = ", ".join(
            f"{_NAMES[name]} was {was} and is {is_}"
            for name, (was, is_) in changed.items()
        )
        raise UserError(
            f"{run} would continue with something else: {what}. Restore it, or give "
            f"--allow-changes, which notes both in run.json."
        )
    return {"digests": now} | ({"changed": changed} if changed else {})


def _digests(manifest: dict[str, Any]) -> dict[str, str | None]:
    """The latest digests in a manifest: of the start, replaced by those of resumes."""
    script = manifest["code"].get("script")
    found = {"data": manifest["data"]["fingerprint"]}
    found |= {"script": script, "kept_script": script}
    for resume in manifest.get("resumes", []):
        later = resume.get("digests")
        if isinstance(later, dict):
            found |= {k: v for k, v in later.items() if k in found and v is not None}
    return found
