"""Folders that are written atomically, with checksums by which damage is detected.

A folder is written as NAME.part; the size and SHA-256 of every file are recorded in
it, everything is synced to the disk, and the folder is renamed to NAME. To remove a
folder, it is first renamed back.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import msgspec

from segjax.errors import UserError
from segjax.files import writing

CHECKSUMS = "checksums.json"
"""The file with the size and SHA-256 of the others, and of itself."""
_PART = ".part"
_MAX_BYTES = 2**28


class _Record(TypedDict):
    metadata: dict[str, Any]
    files: dict[str, tuple[int, str]]


class DamagedError(UserError):
    """A file of a folder is not what was written; the message names it."""


def part_path(folder: pathlib.Path) -> pathlib.Path:
    """Returns NAME.part, the path under which a folder is written first."""
    return folder.with_name(folder.name + _PART)


def commit(folder: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Writes the checksums of `part_path(folder)` and renames it to `folder`.

    Args:
        folder: The final path; what is there is removed first.
        metadata: JSON values to store with the checksums.
    """
    part = part_path(folder)
    _write_checksums(part, metadata)
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    writing.sync(folder.parent)


def remove(folder: pathlib.Path) -> None:
    """Removes a folder; an interrupted removal leaves NAME.part, which is ignored."""
    part = part_path(folder)
    folder.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def remove_unfinished(parent: pathlib.Path) -> None:
    """Removes all NAME.part under `parent`, which may be missing.

    Files that cannot be removed, as those open on a network file system, are left.
    """
    for part in parent.glob(f"*{_PART}"):
        shutil.rmtree(part, ignore_errors=True)


def verify(folder: pathlib.Path) -> None:
    """Reads every byte of a folder and compares it with the checksums.

    Raises:
        DamagedError: If a file is missing, cut, changed, unreadable or unknown; the
            message has its path in the folder.
    """
    expected = _record(folder)["files"]
    for name in sorted({*expected, *(_name(p, folder) for p in _files(folder))}):
        if name not in expected:
            raise DamagedError(f"{name} does not belong to it")
        size, digest = expected[name]
        try:
            found, found_digest = _size_and_digest(folder / name)
        except FileNotFoundError:
            raise DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise DamagedError(f"{name} is unreadable ({error.strerror})") from error
        if found != size:
            raise DamagedError(f"{name} has {found} bytes of {size}")
        if found_digest != digest:
            raise DamagedError(f"{name} is not what was written")


def read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what `commit` was given; DamagedError if the checksum file is damaged."""
    return _record(folder)["metadata"]


def _write_checksums(folder: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    files = {}
    for path in _files(folder):
        files[_name(path, folder)] = _size_and_digest(path)
        writing.sync(path)
    path = folder / CHECKSUMS
    path.write_bytes(_serialize({"metadata": dict(metadata), "files": files}))
    writing.sync(path)
    for path in folder.rglob("*"):
        if path.is_dir():
            writing.sync(path)
    writing.sync(folder)


def _record(folder: pathlib.Path) -> dict[str, Any]:
    try:
        raw = _read(folder / CHECKSUMS)
    except FileNotFoundError:
        raise DamagedError(f"{CHECKSUMS} is missing") from None
    except OSError as error:
        raise DamagedError(f"{CHECKSUMS} is unreadable ({error.strerror})") from error
    try:
        record = json.loads(raw)["record"]
        msgspec.convert(record, _Record)
    except (ValueError, KeyError, TypeError, RecursionError):
        record = None
    # Serialized again it must have the same bytes: its own digest is part of it.
    if record is None or _serialize(record) != raw:
        raise DamagedError(f"{CHECKSUMS} is not what was written")
    return record


def _read(path: pathlib.Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_BYTES or not (path.is_file() or path.is_dir()):
        raise DamagedError(f"{CHECKSUMS} is not what was written")
    return path.read_bytes()


def _serialize(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    whole = {"record": record, "sha256": digest}
    return (json.dumps(whole, sort_keys=True, indent=1) + "\n").encode()


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path != folder / CHECKSUMS:
            yield path


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix()


def _size_and_digest(path: pathlib.Path) -> list[Any]:
    if not path.is_file() and path.exists():  # A pipe would never end.
        raise DamagedError(f"{path.name} is not a file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.tell(), digest]
