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
_AGAIN_SECONDS = 0.02


class Handler:
    """What Ctrl-C does.

    Attributes:
        loading: End the process at once: nothing but imports goes on.
        interrupted: Whether Ctrl-C was received and raised.
    """

    def __init__(self):
        self.loading = True
        self.interrupted = False


@contextlib.contextmanager
def handled() -> Iterator[Handler]:
    """Ctrl-C raises KeyboardInterrupt inside the block, once; then it ends the process.

    In a callback that cannot raise, as JAX's of the garbage collector, it is raised a
    moment later. Libraries may also catch it: if the block has not ended some seconds
    later, the process is ended. Outside the main thread nothing is changed.

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
            exit_now()
        timers.append(threading.Timer(_PATIENCE_SECONDS, exit_now))
        timers[0].daemon = True
        timers[0].start()
        handler.interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, receive)
    try:
        with _raised_again(timers):
            yield handler
    finally:
        signal.signal(signal.SIGINT, before)
        for timer in timers:
            timer.cancel()


@contextlib.contextmanager
def _raised_again(timers: list[threading.Timer]) -> Iterator[None]:
    """Sends Ctrl-C again if Python only printed its exception, as in a callback.

    Args:
        timers: The timers of a received Ctrl-C; emptied if another one is sent.
    """
    before, main_thread = sys.unraisablehook, threading.main_thread()
    ended = threading.Event()

    def receive(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt or not timers:
            before(unraisable)
            return
        timers.pop().cancel()
        # Later, because it cannot be raised here either.
        again = threading.Timer(_AGAIN_SECONDS, send)
        again.daemon = True
        again.start()

    def send() -> None:
        if not ended.is_set():
            signal.pthread_kill(main_thread.ident or 0, signal.SIGINT)

    sys.unraisablehook = receive
    try:
        yield
    finally:
        ended.set()
        sys.unraisablehook = before


def exit_now() -> None:
    """Prints `interrupted.` and ends the process immediately."""
    show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
    with contextlib.suppress(OSError):
        os.write(2, show_cursor + b"interrupted.\n")
    os._exit(EXIT_CODE)
