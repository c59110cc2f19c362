"""What a resume checks before it changes anything."""

import pathlib
from typing import Any

from segjax import run_files
from segjax.train.config import Experiment, TrainConfig
from segjax.train.environment import file_digest
from segjax.train.manifest import SCRIPT

_NAMES = {
    "data": "the data (fingerprint)",
    "script": "the script",
    "kept_script": f"the run's own {SCRIPT}",
}


def check_log(run: pathlib.Path) -> None:
    """Raises a ValueError if a line of `metrics.jsonl` is damaged, by its number."""
    run_files.read_log(run / "metrics.jsonl")


def check_nothing_lost(run: pathlib.Path) -> None:
    """Raises a ValueError if a run that has no checkpoint had some.

    A run that was killed during its first save has an unfinished one, and may have
    logged the updates made meanwhile; one that never saved has logged nothing.
    """
    checkpoints = run / "checkpoints"
    unfinished = any(checkpoints.glob("*.part"))
    records = run_files.read_log(run / "metrics.jsonl")
    trained = any(record["step"] > 0 for record in records) and not unfinished
    if trained or (run / "result.json").exists():
        raise ValueError(
            f"{checkpoints} has no checkpoint, but {run} has been trained. Restore "
            f"the folder, or start another --run."
        )


def check_steps(run: pathlib.Path, config: TrainConfig, first: int) -> None:
    """Raises a ValueError if a run has done more updates than it is to have."""
    if config.steps < first:
        raise ValueError(
            f"--steps is the total, and {run} has done {first} already, got "
            f"{config.steps}. Give --steps {first} or more."
        )


def check_same(
    run: pathlib.Path,
    experiment: Experiment,
    *,
    script: pathlib.Path | None,
    allow_changes: bool,
) -> dict[str, Any]:
    """Compares data and scripts with those that a run was last trained with.

    Args:
        run: The run folder.
        experiment: What is to be trained now.
        script: Where it was defined; not compared if None.
        allow_changes: Go on where they differ.

    Returns:
        What to add to `resumes`: the digests of now, and `changed`, `{name: [before,
        now]}` of those that differ.

    Raises:
        ValueError: If they differ and `allow_changes` is False, or `run.json` is
            damaged.
    """
    found = run_files.read(run / "run.json", run_files.Manifest)
    before = _digests(found)
    now = {
        "data": experiment.data.fingerprint(),
        "script": None if script is None else file_digest(script),
        "kept_script": file_digest(run / SCRIPT),
    }
    changed = {
        name: [was, now[name]]
        for name, was in before.items()
        # A script that is gone from the run is missed by what needs it.
        if was is not None and now[name] is not None and was != now[name]
    }
    if changed and not allow_changes:
        what = ", ".join(
            f"{_NAMES[name]} was {was} and is {is_}"
            for name, (was, is_) in changed.items()
        )
        raise ValueError(
            f"{run} would go on with something else: {what}. Restore it, or give "
            f"--allow-changes, which notes both in run.json."
        )
    return {"digests": now} | ({"changed": changed} if changed else {})


def _digests(manifest: dict[str, Any]) -> dict[str, str | None]:
    """Those that hold now: of the beginning, then of each resume."""
    script = manifest["code"].get("script")
    found = {"data": manifest["data"]["fingerprint"]}
    found |= {"script": script, "kept_script": script}
    for resume in manifest.get("resumes", []):
        later = resume.get("digests")
        if isinstance(later, dict):
            found |= {k: v for k, v in later.items() if k in found and v is not None}
    return found
