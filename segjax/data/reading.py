"""Prefetching in threads or processes, with a warning when reading is slow."""

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from segjax.data import worker

_PREFETCH = 4
_MAX_LISTED = 32

Describe = Callable[[int], str]
"""Describes the element at a position of a stream: "batch 3 (records 5, 1)"."""


class ReaderDiedError(RuntimeError):
    """A reader process died; the message names the batch that it was reading."""


def read_ahead(
    stream: grain.MapDataset,
    describe: Describe,
    *,
    num_threads: int,
    num_workers: int,
    slow_after: float,
) -> Generator[Any, None, None]:
    """Yields the elements in order, prefetched; closing it stops the readers.

    Args:
        stream: The elements; dicts of arrays if there are workers.
        describe: Describes elements in messages.
        num_threads: Reader threads, if there are no workers.
        num_workers: Reader processes; 0 reads in threads of this process.
        slow_after: Seconds of waiting for an element after which a warning is printed
            to standard error; another one after twice as long, and so on.

    Raises:
        ReaderDiedError: If a reader process died; the message describes the element.
    """
    options = grain.ReadOptions(
        num_threads=1 if num_workers else num_threads, prefetch_buffer_size=_PREFETCH
    )
    elements = stream.to_iter_dataset(options)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads them, and absl.app did not run.
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=num_workers, per_worker_buffer_size=2
            ),
            worker_init_fn=worker.prepare,
        )
    iterator = iter(elements)
    with contextlib.closing(iterator), Watch(describe, slow_after) as watch:
        for number in itertools.count():
            watch.wait_for(number)
            try:
                element = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                if "terminated unexpectedly" not in str(error):
                    raise
                raise _died(error, describe(number)) from error
            watch.wait_for(None)
            # A copy, since shared memory must be freed before Python exits.
            yield _copy(element) if num_workers else element


def listed(numbers: Sequence[int], split: str) -> str:
    """Lists record numbers for messages: "records 3, 1, 4 of 'train'"."""
    shown = ", ".join(str(n) for n in numbers[:_MAX_LISTED])
    rest = len(numbers) - _MAX_LISTED
    more = f" and {rest} more" if rest > 0 else ""
    return f"records {shown}{more} of {split!r}"


class Watch:
    """A thread that warns when an element takes long to arrive."""

    def __init__(self, describe: Describe, slow_after: float):
        self._describe, self._slow_after = describe, slow_after
        self._awaited: tuple[int, float] | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def wait_for(self, number: int | None) -> None:
        """Sets the element being waited for; None for no element."""
        self._awaited = None if number is None else (number, time.monotonic())

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        said, due = None, self._slow_after
        while not self._done.wait(self._slow_after / 8):
            awaited = self._awaited
            if awaited != said:
                said, due = awaited, self._slow_after
            if awaited and (waited := time.monotonic() - awaited[1]) >= due:
                print(
                    f"waiting for data: {self._describe(awaited[0])} did not arrive in "
                    f"{waited:.3g} s; still waiting.",
                    file=sys.stderr,
                )
                due *= 2


def _died(error: RuntimeError, what: str) -> ReaderDiedError:
    return ReaderDiedError(
        f"a reader process died while reading {what} (out of memory, killed, or "
        "started by a script without an `if __name__ == '__main__':` guard). Use "
        f"fewer workers, or num_workers=0 to read in threads. Cause: {error}"
    )


def _copy(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in batch.items()}
