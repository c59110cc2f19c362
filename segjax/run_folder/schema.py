"""Reads the JSON files of a run folder, which may come from anybody.

Sizes, nesting and the types of the entries that segjax uses are checked; unknown
entries are kept.
"""

import json
import os
import pathlib
import re
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from segjax.errors import UserError

MAX_BYTES = 64 * 2**20
"""The largest `run.json` or `result.json`."""
MAX_LOG_BYTES = 2**30
"""The largest `metrics.jsonl`."""

MAX_DEPTH = 32
"""The deepest nesting of objects and arrays."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Scalar = float | int | str | bool | None


class Data(TypedDict):
    """What `run.json` says of the data."""

    fingerprint: str
    dataset: str
    skip_corrupt: NotRequired[Annotated[int, msgspec.Meta(ge=0)]]


class Code(TypedDict, total=False):
    """Digests of the code."""

    commit: str
    dirty: bool
    segjax: str
    script: str | None


class Config(TypedDict, total=False):
    """`TrainConfig`."""

    skip_nonfinite: int
    monitor: str


class Arithmetic(TypedDict):
    """Digests of one update."""

    loss: float | None
    gradients: str
    parameters: str
    state: NotRequired[str]


class Digests(TypedDict):
    """Digests of the first updates."""

    steps: Count
    program: str
    initialization: str
    data: list[str]
    augmentation: list[str]
    arithmetic: list[Arithmetic]


class Manifest(TypedDict):
    """`run.json`."""

    script: str | None
    flags: dict[str, Any]
    seed: int
    config: Config
    model: str
    data: Data
    code: Code
    versions: dict[str, str]
    devices: list[str]
    xla_flags: str
    compiler_options: NotRequired[dict[str, str]]
    onednn: NotRequired[str | None]
    processes: NotRequired[Count]
    jax: NotRequired[dict[str, Any]]
    seeds_together: NotRequired[list[int]]
    signature: NotRequired[str]
    digests: NotRequired[Digests]
    resumes: NotRequired[list[dict[str, Any]]]


class Stopped(TypedDict):
    """The step at which a callback stopped a run."""

    step: int


class Result(TypedDict, total=False):
    """`result.json`."""

    metrics: dict[str, Scalar]
    split: str
    steps: int
    best_step: int
    seed: int
    seconds: float
    stopped: Stopped


class ShownManifest(TypedDict, total=False):
    """The part of `run.json` that the report reads; the rest is shown as it is."""

    config: Config


def read(path: pathlib.Path, kind: Any) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: The file.
        kind: A TypedDict of this module: the entries that are needed, and their types.

    Raises:
        ValueError: If the file is too large, no JSON, or lacks an entry; the message
            has its name. Also if it is no regular file, such as a pipe.
    """
    raw = _bytes(path, MAX_BYTES)
    try:
        value = json.loads(raw)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({_one_line(error)}). Restore or remove it."
        ) from None
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged or was not written by segjax: {_one_line(error)}. "
            f"Restore it."
        ) from None
    return value


def read_log(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`.

    The last line may be cut short by a kill; it is left out.

    Returns:
        Its records, in their order; none if there is no file.

    Raises:
        ValueError: If another line is no record, by its number.
    """
    if not os.path.lexists(path):  # A link that leads nowhere is no missing log.
        return []
    lines = _bytes(path, MAX_LOG_BYTES).split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):
        record = record_of(line)
        if record is None:
            raise UserError(
                f"{path} is damaged: line {number} is no record of a step. Restore "
                f"the file, or remove the line."
            )
        records.append(record)
    return records


def read_log_leniently(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the valid records of `metrics.jsonl` and skips the rest; for plots."""
    if not path.exists():
        return []
    lines = _bytes(path, MAX_LOG_BYTES).split(b"\n")
    return [r for r in map(record_of, lines) if r is not None]


def record_of(line: bytes) -> dict[str, Any] | None:
    """Parses a line of `metrics.jsonl`; None if it is not a record."""
    try:
        record = msgspec.convert(msgspec.json.decode(line), dict[str, Scalar])
    except (ValueError, RecursionError):
        return None
    step = record.get("step")
    whole = isinstance(step, int) and not isinstance(step, bool) and step >= 0
    return record if whole and record.get("kind") in ("train", "eval") else None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise UserError(f"more than {MAX_DEPTH} levels deep")


def _bytes(path: pathlib.Path, limit: int) -> bytes:
    if not path.is_file():  # A pipe would never end.
        raise UserError(f"{path} needs to be a file. Restore or remove it.")
    size = path.stat().st_size
    if size > limit:
        raise UserError(
            f"{path} has {size} bytes, more than the {limit} that are read. "
            f"It is damaged, or not written by segjax."
        )
    return path.read_bytes()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"[^ -~]", "?", text)[:200]
