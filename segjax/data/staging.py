"""Where data sets are made before they are whole, and what killed makers left."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

_PREFIX = ".preparing-"


@contextlib.contextmanager
def folder(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder in `root`, which is removed afterwards.

    Its maker holds a lock on it, which the system drops when the maker ends, however
    it ends. So the folders of `root` that nobody holds are leftovers, and are removed
    first. Where the file system has no locks, leftovers stay.

    Raises:
        ValueError: If `root` cannot be written to.
    """
    with contextlib.ExitStack() as held:
        try:
            root.mkdir(parents=True, exist_ok=True)
            # One at a time: no folder is seen between its making and its locking.
            with _lock(root, fcntl.LOCK_EX):
                _sweep(root)
                made = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
                held.enter_context(_lock(made, fcntl.LOCK_EX))
        except OSError as error:
            raise ValueError(
                f"cannot write to {root} ({error.strerror}): needed a folder for "
                "prepared data; set SEGJAX_DATA_DIR or data_dir to another one."
            ) from error
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _sweep(root: pathlib.Path) -> None:
    for left in root.glob(f"{_PREFIX}*"):
        with _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            if locked:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: pathlib.Path, kind: int) -> Iterator[bool]:
    """Locks a folder; False where that is not possible."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Its maker has just removed it, or it is another user's.
        yield False
        return
    try:
        locked = True
        try:
            fcntl.flock(handle, kind)
        except OSError:  # Held by another, or a file system without locks.
            locked = False
        yield locked
    finally:
        os.close(handle)
