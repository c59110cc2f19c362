"""Signals in reader processes, and their end when the training process ends."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

_GRACE = 60.0
"""Seconds that a reader keeps running after SIGTERM."""


def prepare(index: int, count: int) -> None:
    """Initializes a reader process.

    Ctrl-C in a terminal and the SIGTERM of a batch system reach readers too. The
    training process then finishes its step, for which it may still need a batch, so
    readers ignore SIGINT and exit some time after SIGTERM. When the training process
    is gone, even by `kill -9`, they exit immediately.

    Args:
        index: Number of this reader.
        count: Number of readers.
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
