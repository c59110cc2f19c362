"""Folders that appear whole or not at all, and in which damage is noticed.

One is written as NAME.part, sealed (every file's size and digest on record, all of it
on the disk), and then renamed to NAME. Removing goes the other way round.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import msgspec

SEAL = "digests.json"
"""The file of a sealed folder that describes the others, and itself."""
_PART = ".part"
_MOST_BYTES = 2**28


class _Record(TypedDict):
    facts: dict[str, Any]
    files: dict[str, tuple[int, str]]


class DamagedError(ValueError):
    """A file of a sealed folder is not what was written; the message names it."""


def part_of(folder: pathlib.Path) -> pathlib.Path:
    """Where a folder is written: beside itself, NAME.part."""
    return folder.with_name(folder.name + _PART)


def publish(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Seals `part_of(folder)`, whose files are complete, and gives it its name.

    Args:
        folder: Its final path; what is there is removed first.
        facts: JSON values to keep beside the digests.
    """
    part = part_of(folder)
    _seal(part, facts)
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    _sync(folder.parent)


def remove(folder: pathlib.Path) -> None:
    """Removes a folder; one that is half removed has no name that counts."""
    part = part_of(folder)
    folder.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def sweep(parent: pathlib.Path) -> None:
    """Removes what was not finished under `parent`, which may be missing.

    What cannot be removed, as a file that is open on a network file system, is left.
    """
    for part in parent.glob(f"*{_PART}"):
        shutil.rmtree(part, ignore_errors=True)


def check(folder: pathlib.Path) -> None:
    """Reads every byte of a sealed folder.

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


def facts(folder: pathlib.Path) -> dict[str, Any]:
    """What `publish` was given. Raises DamagedError if the seal itself is damaged."""
    return _record(folder)["facts"]


def _seal(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    files = {}
    for path in _files(folder):
        files[_name(path, folder)] = _size_and_digest(path)
        _sync(path)
    path = folder / SEAL
    path.write_bytes(_text({"facts": dict(facts), "files": files}))
    _sync(path)
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync(path)
    _sync(folder)


def _record(folder: pathlib.Path) -> dict[str, Any]:
    try:
        raw = _read(folder / SEAL)
    except FileNotFoundError:
        raise DamagedError(f"{SEAL} is missing") from None
    except OSError as error:
        raise DamagedError(f"{SEAL} is unreadable ({error.strerror})") from error
    try:
        record = json.loads(raw)["sealed"]
        msgspec.convert(record, _Record)
    except (ValueError, KeyError, TypeError, RecursionError):
        record = None
    # Written again it must be the same, byte for byte: its own digest is in it.
    if record is None or _text(record) != raw:
        raise DamagedError(f"{SEAL} is not what was written")
    return record


def _read(path: pathlib.Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_BYTES or not (path.is_file() or path.is_dir()):
        raise DamagedError(f"{SEAL} is not what was written")
    return path.read_bytes()


def _text(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    whole = {"sealed": record, "sha256": digest}
    return (json.dumps(whole, sort_keys=True, indent=1) + "\n").encode()


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path != folder / SEAL:
            yield path


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix()


def _size_and_digest(path: pathlib.Path) -> list[Any]:
    if not path.is_file() and path.exists():  # A pipe would never end.
        raise DamagedError(f"{path.name} is not a file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.tell(), digest]


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
