"""Atomic writing of files."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path to write to, whose file then replaces `path`.

    Until then, and if the block raises, `path` is unchanged. A killed process leaves at
    most a hidden `.NAME.tmp`, which the next writer of `path` overwrites. Files are
    synced to disk before they are renamed, so they survive a power failure.

    Args:
        path: In a folder that exists.

    Raises:
        OSError: If a file cannot be written, as on a full disk; `filename` is always
            `path`.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, error.strerror or str(error), str(path)
            ) from error
        raise


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_error(error: Exception) -> str | None:
    """Returns `No space left on device` of an OSError, or of TensorStore's error."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else None


def sync(path: pathlib.Path) -> None:
    """Flushes a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
