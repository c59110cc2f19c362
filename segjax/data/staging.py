"""Temporary folders for data preparation, and removal of abandoned ones."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from segjax.errors import UserError

_PREFIX = ".preparing-"


@contextlib.contextmanager
def folder(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Creates a temporary folder in `root`, and removes it afterwards.

    The process that creates it holds a lock on it, which the system releases when the
    process ends, even if it is killed. Unlocked folders in `root` are therefore
    leftovers, and are removed first. They stay if the file system has no locks.

    Raises:
        ValueError: If `root` is not writable.
    """
    with contextlib.ExitStack() as held:
        try:
            root.mkdir(parents=True, exist_ok=True)
            # One process at a time, so that none sees a folder before it is locked.
            with _lock(root, fcntl.LOCK_EX):
                _remove_leftovers(root)
                made = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
                held.enter_context(_lock(made, fcntl.LOCK_EX))
        except OSError as error:
            raise UserError(
                f"cannot write to {root} ({error.strerror}): needed a folder for "
                "prepared data; set SEGJAX_DATA_DIR or data_dir to another one."
            ) from error
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _remove_leftovers(root: pathlib.Path) -> None:
    for left in root.glob(f"{_PREFIX}*"):
        with _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            if locked:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: pathlib.Path, kind: int) -> Iterator[bool]:
    """Locks a folder; yields False if that is not possible."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # It was just removed, or belongs to another user.
        yield False
        return
    try:
        locked = True
        try:
            fcntl.flock(handle, kind)
        except OSError:  # Locked by another process, or no locks on this file system.
            locked = False
        yield locked
    finally:
        os.close(handle)
