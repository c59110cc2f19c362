"""SIGTERM and Ctrl-C: training stops after the current step, and saves."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Stopped(Exception):
    """Training was told to stop, and has saved.

    Attributes:
        signum: The signal.
        step: Updates done and saved.
    """

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}")
        self.signum = signum
        self.step = step


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Yields a function that returns the signal received so far, or None.

    A second signal ends the process immediately by the operating system's default
    action: Python's own handling of Ctrl-C would first wait for a checkpoint that is
    being written. Outside the main thread signals cannot be caught, and the function
    always returns None.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def receive(signum: int, frame) -> None:
        del frame
        received.append(signum)
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    for signum in before:
        signal.signal(signum, receive)
    try:
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
