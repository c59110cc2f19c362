"""The user's files, in a folder or in a zip."""

import dataclasses
import difflib
import hashlib
import os
import pathlib
import zipfile
from typing import Protocol, runtime_checkable

from segjax.errors import UserError
from segjax.files import limits, reading


@runtime_checkable
class Tree(Protocol):
    """Files below a root. Names are relative to it, with forward slashes."""

    def folders(self, folder: str) -> list[str]:
        """Lists the folders directly inside `folder` ("" is the root), sorted."""
        ...

    def files(self, folder: str) -> list[str]:
        """Lists the files directly inside `folder`, sorted, without hidden ones."""
        ...

    def read(self, name: str, *, max_bytes: int = limits.FILE_BYTES) -> bytes:
        """Reads a file; ValueError if it has more than `max_bytes` bytes."""
        ...

    def stamp(self, name: str) -> str:
        """Returns a string that changes when the content of a file does."""
        ...

    def shown(self, name: str) -> str:
        """Returns the full path, for messages."""
        ...


@dataclasses.dataclass(frozen=True)
class Folder:
    """Files in a folder."""

    root: pathlib.Path

    def _names(self, folder: str, *, want_files: bool) -> list[str]:
        where = self.root / folder
        if not where.is_dir():
            return []
        prefix = f"{folder}/" if folder else ""
        return sorted(
            prefix + entry.name
            for entry in os.scandir(where)
            # Neither file nor folder, such as a pipe: rejected when it is read.
            if entry.is_dir() != want_files and not entry.name.startswith(".")
        )

    def folders(self, folder: str) -> list[str]:
        """See `Tree`."""
        return self._names(folder, want_files=False)

    def files(self, folder: str) -> list[str]:
        """See `Tree`."""
        return self._names(folder, want_files=True)

    def read(self, name: str, *, max_bytes: int = limits.FILE_BYTES) -> bytes:
        """See `Tree`."""
        try:
            return reading.read_bytes(self.root / name, max_bytes=max_bytes)
        except OSError as error:
            raise UserError(
                f"cannot read {self.shown(name)} ({error.strerror}): make the file "
                f"readable."
            ) from error

    def stamp(self, name: str) -> str:
        """Returns size and modification time."""
        stat = (self.root / name).stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def shown(self, name: str) -> str:
        """See `Tree`."""
        return str(self.root / name)


class Zip:
    """Files in a zip; a folder named `top`, if the zip has one, is the root."""

    def __init__(self, path: pathlib.Path, top: str):
        if not path.is_file():
            raise UserError(f"{path} is a pipe or device: needed a folder or a zip.")
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # OSError, BadZipFile, UnicodeDecodeError...
            raise UserError(
                f"{path} is not a complete zip ({error}): download it again."
            ) from error
        self._path = path
        self._check()
        names = [n for n in self._zip.namelist() if not _hidden(n)]
        inside = any(n.startswith(f"{top}/") for n in names)
        self._top = f"{top}/" if inside else ""
        self._files: dict[str, list[str]] = {}
        self._folders: dict[str, set[str]] = {}
        for name in names:
            if name.startswith(self._top) and not name.endswith("/"):
                self._add(name.removeprefix(self._top))

    def _check(self) -> None:
        names = self._zip.namelist()
        if len(names) > limits.ZIP_ENTRIES:
            raise UserError(
                f"{self._path} has {len(names):,} entries: needed at most "
                f"{limits.ZIP_ENTRIES:,}; unpack it and pass the folder."
            )
        if len(set(names)) < len(names):
            raise UserError(
                f"{self._path} has two entries with the same name: needed unique "
                f"names; zip the folder again."
            )

    def _add(self, name: str) -> None:
        folder = name.rpartition("/")[0]
        self._files.setdefault(folder, []).append(name)
        while folder:
            parent = folder.rpartition("/")[0]
            self._folders.setdefault(parent, set()).add(folder)
            folder = parent

    def folders(self, folder: str) -> list[str]:
        """See `Tree`."""
        return sorted(self._folders.get(folder, ()))

    def files(self, folder: str) -> list[str]:
        """See `Tree`."""
        return sorted(self._files.get(folder, ()))

    def read(self, name: str, *, max_bytes: int = limits.FILE_BYTES) -> bytes:
        """See `Tree`; the zip's checksum is verified."""
        entry = self._zip.getinfo(self._top + name)
        max_bytes = min(max_bytes, self._max_bytes(name))
        if entry.file_size > max_bytes:
            raise UserError(
                f"{self.shown(name)} unpacks to {entry.file_size:,} bytes: needed at "
                f"most {max_bytes:,}; if the size is right, unpack the zip and pass "
                f"the folder."
            )
        try:
            return self._zip.read(self._top + name)
        except Exception as error:  # zlib.error, BadZipFile, EOFError, RuntimeError...
            raise UserError(
                f"cannot read {self.shown(name)} ({error}): download the zip again."
            ) from error

    def _max_bytes(self, name: str) -> int:
        """Limits the size of an entry, against zip bombs."""
        packed = self._zip.getinfo(self._top + name).compress_size
        by_ratio = max(limits.ZIP_FREE, limits.ZIP_RATIO * packed)
        return min(limits.ZIP_ENTRY_BYTES, by_ratio)

    def stamp(self, name: str) -> str:
        """Returns size and checksum."""
        info = self._zip.getinfo(self._top + name)
        return f"{info.file_size} {info.CRC}"

    def shown(self, name: str) -> str:
        """See `Tree`."""
        return f"{self._path}: {self._top}{name}"


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def existing(source: str | os.PathLike, needs: str) -> pathlib.Path:
    """Returns the absolute path of the source; ValueError if it does not exist."""
    path = pathlib.Path(source).expanduser().absolute()
    if not path.exists():
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else "."
        raise UserError(f"source {path} does not exist: needed {needs}{hint}")
    return path


def _siblings(path: pathlib.Path) -> list[str]:
    return os.listdir(path.parent) if path.parent.is_dir() else []


def find(source: pathlib.Path, part: str, *, needs: str, alone: bool) -> Tree:
    """Finds one part of a download, as a zip or unpacked.

    Args:
        source: A folder that holds `<part>.zip` or `<part>/`, or one of these itself.
        part: Name of the zip and of the folder inside it.
        needs: What the data set needs, for the message.
        alone: Whether this is the only part, so that any zip or folder is taken.
    """
    folder = source.parent if source.is_file() else source
    if source.is_file() and (alone or source.stem == part):
        return Zip(source, part)
    if (folder / f"{part}.zip").is_file():
        return Zip(folder / f"{part}.zip", part)
    if (folder / part).is_dir():
        return Folder(folder / part)
    if alone and any(folder.iterdir()):
        return Folder(folder)
    got = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
    raise UserError(f"{folder} has no {part}.zip: needed {needs}, got {got}.")


def digest(tree: Tree, folder: str = "") -> str:
    """Digests all names and stamps in and below a folder."""
    total = hashlib.sha256()
    for name in tree.files(folder):
        total.update(f"{name} {tree.stamp(name)}\n".encode())
    for inner in tree.folders(folder):
        total.update(digest(tree, inner).encode())
    return total.hexdigest()
