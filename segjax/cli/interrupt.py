"""Ctrl-C: one line and exit code 130, from the first moment, and never swallowed.

Imports nothing heavy: it is installed before the libraries are imported.
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
        interrupted: Ctrl-C came, and was raised.
    """

    def __init__(self):
        self.loading = True
        self.interrupted = False


@contextlib.contextmanager
def handled() -> Iterator[Handler]:
    """Ctrl-C raises KeyboardInterrupt inside the block, once; then it ends the process.

    Where it cannot be raised, as in JAX's callback of the garbage collector, it is
    raised a moment later. Libraries may also catch it: if the block has not ended some
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
    """Sends Ctrl-C again where Python would only have printed its exception.

    Args:
        timers: Of a Ctrl-C that was received; emptied where another one is sent.
    """
    before, main_thread = sys.unraisablehook, threading.main_thread()
    ended = threading.Event()

    def receive(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt or not timers:
            before(unraisable)
            return
        timers.pop().cancel()
        # Later: here, too, it could not be raised.
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


def leave() -> None:
    """Says `interrupted.` and ends the process, without asking Python."""
    show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
    with contextlib.suppress(OSError):
        os.write(2, show_cursor + b"interrupted.\n")
    os._exit(EXIT_CODE)
