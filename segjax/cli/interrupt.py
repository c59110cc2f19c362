"""Ctrl-C ends every command with one line and exit code 130, also while importing.

This module imports nothing heavy: it is active before the libraries are imported.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 128 + signal.SIGINT
_PATIENCE_SECONDS = 5.0


class Handler:
    """What Ctrl-C does.

    Attributes:
        loading: End the process at once: nothing but imports goes on.
    """

    def __init__(self):
        self.loading = True


@contextlib.contextmanager
def handled() -> Iterator[Handler]:
    """Ctrl-C raises KeyboardInterrupt inside the block, once; then it ends the process.

    Callbacks of libraries may swallow the exception: if the block has not ended some
    seconds later, the process is ended. Outside the main thread nothing is changed.

    Yields:
        The handler. While its `loading` is True, as it is at first, Ctrl-C ends the
        process at once.
    """
    handler = Handler()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    timers: list[threading.Timer] = []

    def receive(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if handler.loading or timers:
            leave()
        timers.append(threading.Timer(_PATIENCE_SECONDS, leave))
        timers[0].daemon = True
        timers[0].start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, receive)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGINT, before)
        for timer in timers:
            timer.cancel()


def leave() -> None:
    """Prints `interrupted.` and ends the process immediately."""
    show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
    with contextlib.suppress(OSError):
        os.write(2, show_cursor + b"interrupted.\n")
    os._exit(EXIT_CODE)
