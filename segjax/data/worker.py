"""How a reader process behaves when the process that it reads for is ended."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

_GRACE = 60.0
"""Seconds that a reader goes on after SIGTERM."""


def prepare(index: int, count: int) -> None:
    """Runs first in each reader process.

    Ctrl-C in a terminal, and the SIGTERM of a batch system, reach readers too. The
    training process then finishes its step, for which it may still wait for a batch:
    so readers ignore the one, and obey the other late. When the training process is
    gone, by `kill -9` as well, they end at once: nobody else would end them.

    Args:
        index: Which reader this is.
        count: How many there are.
    """
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_later(signum: int, frame) -> None:
    del frame
    timer = threading.Timer(_GRACE, os._exit, (128 + signum,))
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
