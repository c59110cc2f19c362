"""What ends a run whose files cannot be written, as on a full disk."""

import contextlib
import pathlib
from collections.abc import Iterator

from segjax.files import writing


class SaveError(Exception):
    """A file of the run could not be written; the message says which and why."""


@contextlib.contextmanager
def saving(path: pathlib.Path, *, after: str = "") -> Iterator[None]:
    """Turns a system's refusal to write into a SaveError, which is one line.

    Args:
        path: What is written inside the block.
        after: A sentence about what is left.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise SaveError(
            f"{path} could not be written: {reason}. {after}"
            f"Mend the cause, then go on with --resume."
        ) from error


def _reason(error: Exception) -> str | None:
    """`No space left on device` of an OSError, or of what TensorStore makes of one."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, TimeoutError):
        error = cause
    if isinstance(error, TimeoutError):
        # Orbax's, after a week, or of processes that wait for each other.
        return "it took too long, as in a process that was paused"
    return writing.refusal(error)
