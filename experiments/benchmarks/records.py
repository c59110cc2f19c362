"""Where benchmarks keep what they measured: a JSON file for each kind of machine."""

import datetime
import json
import os
import pathlib
import re
from typing import Any

import jax

from segjax import train

RESULTS = pathlib.Path(__file__).parent / "results"


def write(
    name: str, found: dict[str, Any], *, note: str, out: pathlib.Path | None
) -> pathlib.Path:
    """Writes results with their date, versions and hardware.

    Args:
        name: Of the benchmark.
        found: JSON values.
        note: What else a reader of the numbers should know.
        out: The file; results/NAME-MACHINE.json if None.

    Returns:
        The file written.
    """
    record = {
        "date": datetime.date.today().isoformat(),
        "note": note,
        **train.run_environment(),
        **found,
    }
    path = out or RESULTS / f"{name}-{machine()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def machine() -> str:
    """A name for the kind of machine, such as `cpu-2-cores`."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu-{len(os.sched_getaffinity(0))}-cores"
    kind = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower())
    return f"{len(jax.devices())}-{kind.strip('-')}"
