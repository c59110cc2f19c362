"""From exceptions to what a person reads: one line, and an exit code."""

import os
import pathlib
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable

from segjax.train.record import NonFiniteError
from segjax.train.signals import Stopped

USER_ERROR, NON_FINITE = 2, 3
_PACKAGE = pathlib.Path(__file__).parents[1]


def exit_code(work: Callable[[], None]) -> int:
    """Runs a verb and turns how it ended into an exit code.

    A ValueError raised by segjax or by the experiment's own script is a user's
    mistake: its message is printed as `error: ...`, and so are segjax's own types of
    errors, such as that of a reader process which died. One that an installed library
    raised is a bug and keeps its traceback, as all do where SEGJAX_TRACEBACK is set.

    Args:
        work: What to run.

    Returns:
        0; 2 for a user's mistake; 3 for training that became non-finite; 128 plus
        the signal for training that was told to stop.
    """
    try:
        work()
    except Stopped as stopped:
        _say(f"{stopped}; go on with --resume.")
        return 128 + stopped.signum
    except KeyboardInterrupt:
        _say("interrupted.")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output left, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if os.environ.get("SEGJAX_TRACEBACK") or not _is_message(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return NON_FINITE if isinstance(error, NonFiniteError) else USER_ERROR
    return 0


def _is_message(error: Exception) -> bool:
    if type(error).__module__.partition(".")[0] == "segjax":
        return True  # NonFiniteError, SaveError, ReaderDiedError: ours say what to do.
    if isinstance(error, OSError):
        return error.filename is not None
    if not isinstance(error, ValueError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = pathlib.Path(frame.f_code.co_filename)
    if _PACKAGE in raised_in.parents:
        return True
    paths = sysconfig.get_paths()
    libraries = {paths[name] for name in ("stdlib", "purelib", "platlib")}
    return not any(pathlib.Path(p) in raised_in.parents for p in libraries)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
