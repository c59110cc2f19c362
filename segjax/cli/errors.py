"""From exceptions to what a person reads: one line, and an exit code."""

import atexit
import contextlib
import errno
import os
import pathlib
import re
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable

from segjax.train.record import NonFiniteError
from segjax.train.signals import Stopped

USER_ERROR, NON_FINITE = 2, 3
_PACKAGE = pathlib.Path(__file__).parents[1]
_OF_FLAGS = (ValueError, ZeroDivisionError, OverflowError)
"""What libraries raise where a flag makes no sense to them, as in --width 0."""
_LIBRARIES = ("optax", "flax", "jax", "chex")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_MOST_CHARACTERS = 200


def exit_code(work: Callable[[], None]) -> int:
    """Runs a verb and turns how it ended into an exit code.

    What a user caused ends in one line, `error: ...`: see `message`. Anything else is
    a bug and keeps its traceback, as all do where SEGJAX_TRACEBACK is set.

    Args:
        work: What to run.

    Returns:
        0; 2 for a user's mistake; 3 for training that became non-finite; 128 plus
        the signal for training that was told to stop.
    """
    try:
        work()
        sys.stdout.flush()  # A full disk says so here, or never.
    except Stopped as stopped:
        _say(f"{stopped}; go on with --resume.")
        return 128 + stopped.signum
    except KeyboardInterrupt:
        atexit.register(_hush)
        _say("interrupted.")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _write_no_more()  # The reader of our output left, as `head` does.
        return 128 + signal.SIGPIPE
    except Exception as error:
        if _was_interrupted(error):
            atexit.register(_hush)
            _say("interrupted.")
            return 128 + signal.SIGINT
        line = None if os.environ.get("SEGJAX_TRACEBACK") else message(error)
        if line is None:
            raise
        atexit.register(_hush)
        _say(f"error: {line}")
        return NON_FINITE if isinstance(error, NonFiniteError) else USER_ERROR
    return 0


def _hush() -> None:
    """Keeps threads of libraries, which lost their work, quiet while Python ends."""
    sys.unraisablehook = threading.excepthook = lambda _: None


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a library caught Ctrl-C and raised something else for it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def message(error: Exception) -> str | None:
    """One printable line about what a user caused; None for what looks like a bug.

    It is about: a ValueError raised by segjax or by the experiment's own script;
    segjax's own types of errors, such as that of a reader process which died; files
    and disks; memory that is not enough; and flags that make no sense to a library.

    Args:
        error: What ended a verb.
    """
    if type(error).__module__.partition(".")[0] == "segjax":
        return _printable(str(error))  # Ours say what to do.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        wanted = re.search(r"allocat\w* (\d+|[\d.]+ ?\w?i?B)", str(error))
        what = f" (for {wanted[1]} bytes)" if wanted and wanted[1].isdigit() else ""
        return (
            f"The memory is not enough{what}. Lower --batch-size, or the size of the "
            f"images."
        )
    if isinstance(error, OSError):
        return _of_a_file(error)
    if not isinstance(error, _OF_FLAGS):
        return None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = pathlib.Path(frame.f_code.co_filename)
    library = _library(raised_in)
    if library in _LIBRARIES:
        text = _printable(str(error))[:_MOST_CHARACTERS].rstrip(".")
        return (
            f"{library} refuses what the experiment asks for: {text}. Check its "
            f"flags; SEGJAX_TRACEBACK=1 shows where."
        )
    if library is not None or not isinstance(error, ValueError):
        return None
    return _printable(str(error))


def _library(path: pathlib.Path) -> str | None:
    """The installed library that a file belongs to; None for segjax and scripts."""
    if _PACKAGE in path.parents:
        return None
    paths = sysconfig.get_paths()
    for name in ("purelib", "platlib", "stdlib"):
        root = pathlib.Path(paths[name])
        if root in path.parents:
            return path.relative_to(root).parts[0]
    return None


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
    """One line, without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _write_no_more() -> None:
    """Sends standard output nowhere, so that Python's end does not fail on it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
