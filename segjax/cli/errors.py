"""Converts exceptions into one line on standard error and an exit code."""

import atexit
import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable

import jax

from segjax.signals import Stopped
from segjax.train.recorder import NonFiniteError

USER_ERROR, NON_FINITE = 2, 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def exit_code(work: Callable[[], None]) -> int:
    """Runs a subcommand and returns the exit code.

    An error that the user can fix ends in one line, `error: ...`: see `message`.
    Anything else is a bug and raised, as are all errors if SEGJAX_TRACEBACK is set.

    Args:
        work: The subcommand.

    Returns:
        0; 2 for a user's mistake; 3 for training that became non-finite; 128 plus
        the signal for training that was stopped.
    """
    try:
        work()
        sys.stdout.flush()  # A full disk says so here, or never.
    except Stopped as stopped:
        _print(f"{stopped}; continue with --resume.")
        return 128 + stopped.signum
    except KeyboardInterrupt:
        atexit.register(_silence_threads)
        _print("interrupted.")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _write_no_more()  # The reader of our output left, as `head` does.
        return 128 + signal.SIGPIPE
    except Exception as error:
        if _was_interrupted(error):
            atexit.register(_silence_threads)
            _print("interrupted.")
            return 128 + signal.SIGINT
        line = None if os.environ.get("SEGJAX_TRACEBACK") else message(error)
        if line is None:
            raise
        atexit.register(_silence_threads)
        _print(f"error: {line}")
        return NON_FINITE if isinstance(error, NonFiniteError) else USER_ERROR
    return 0


def _silence_threads() -> None:
    """Silences the threads of libraries while Python exits after an interruption."""
    sys.unraisablehook = threading.excepthook = lambda _: None


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a library caught Ctrl-C and raised another exception for it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def message(error: Exception) -> str | None:
    """Returns one printable line about an error that the user can fix.

    These are segjax's own errors (`UserError` and others), errors of files and disks,
    and a lack of memory. Any other error is a bug: the result is None.

    Args:
        error: The exception that ended a subcommand.
    """
    if type(error).__module__.partition(".")[0] == "segjax":
        return _printable(str(error))
    if isinstance(error, MemoryError) or _is_device_memory(error):
        wanted = re.search(r"allocat\w* (\d+|[\d.]+ ?\w?i?B)", str(error))
        what = f" (for {wanted[1]} bytes)" if wanted and wanted[1].isdigit() else ""
        return (
            f"The memory is not enough{what}. Lower --batch-size, or the size of the "
            f"images."
        )
    return _of_a_file(error) if isinstance(error, OSError) else None


def _is_device_memory(error: Exception) -> bool:
    """Whether XLA ran out of memory; its errors have no code but in their text."""
    return isinstance(error, jax.errors.JaxRuntimeError) and str(error).startswith(
        "RESOURCE_EXHAUSTED"
    )


def _of_a_file(error: OSError) -> str | None:
    if error.filename is not None:
        return _printable(str(error))
    if _stdout_is_full():
        _write_no_more()
        return f"Standard output could not be written: {error.strerror}."
    if error.errno not in _FULL:
        return None
    return f"A file could not be written: {error.strerror}. Free space, and try again."


def _stdout_is_full() -> bool:
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        return True
    return False


def _printable(text: str) -> str:
    """Joins lines and replaces control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _write_no_more() -> None:
    """Redirects standard output to /dev/null, so that Python's exit does not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
