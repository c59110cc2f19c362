"""Errors of writing a run folder, such as a full disk, as one line."""

import contextlib
import pathlib
from collections.abc import Iterator

from segjax.files import writing


class SaveError(Exception):
    """A file of the run could not be written; the message says which and why."""


@contextlib.contextmanager
def saving(path: pathlib.Path, *, note: str = "") -> Iterator[None]:
    """Converts the operating system's write errors into a SaveError.

    Args:
        path: The file or folder that the block writes.
        note: A sentence to add, such as which checkpoint is left.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise SaveError(
            f"{path} could not be written: {reason}. {note}"
            f"Fix the cause, then continue with --resume."
        ) from error


def _reason(error: Exception) -> str | None:
    """`No space left on device` of an OSError, also where TensorStore wraps it."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, TimeoutError):
        error = cause
    if isinstance(error, TimeoutError):
        # Orbax's, after a week, or of processes that wait for each other.
        return "it took too long, as in a process that was paused"
    return writing.write_error(error)
