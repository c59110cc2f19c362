"""Reading ahead, in threads or processes; saying so when nothing comes."""

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

_BATCHES_AHEAD = 4
_SHOWN = 32

Describe = Callable[[int], str]
"""Names the element at one place of a stream, such as "batch 3 (records 5, 1)"."""


class ReaderDiedError(RuntimeError):
    """A reader process ended by itself; its last words name what it was to read."""


def read_ahead(
    stream: grain.MapDataset,
    describe: Describe,
    *,
    threads: int,
    workers: int,
    slow_after: float,
) -> Generator[Any, None, None]:
    """Elements in order, read ahead; closing it stops the readers.

    Args:
        stream: What to read. With workers, its elements are dicts of arrays.
        describe: Names elements in messages.
        threads: That read, if there are no workers.
        workers: Processes that read; 0 reads in threads of this one.
        slow_after: Seconds after which an element that is waited for is announced
            on standard error; again after twice as long, and so on.

    Raises:
        ReaderDiedError: If a reader process died; it names the element.
    """
    options = grain.ReadOptions(
        num_threads=1 if workers else threads, prefetch_buffer_size=_BATCHES_AHEAD
    )
    elements = stream.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads them; outside absl's app.
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
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
            # Out of the shared memory, which must be free before Python exits.
            yield _copy(element) if workers else element


def listed(numbers: Sequence[int], split: str) -> str:
    """Record numbers for messages: "records 3, 1, 4 of 'train'"."""
    shown = ", ".join(str(n) for n in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"records {shown}{more} of {split!r}"


class Watch:
    """A thread that says what is waited for, when the wait is long."""

    def __init__(self, describe: Describe, slow_after: float):
        self._describe, self._slow_after = describe, slow_after
        self._awaited: tuple[int, float] | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def wait_for(self, number: int | None) -> None:
        """The element that is waited for from now on; None: nothing is."""
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
                    f"waiting for data: {self._describe(awaited[0])} did not come in "
                    f"{waited:.3g} s; going on when it does.",
                    file=sys.stderr,
                )
                due *= 2


def _died(error: RuntimeError, what: str) -> ReaderDiedError:
    return ReaderDiedError(
        f"a reader process died while {what} was to be read (out of memory, killed, "
        "or started by a script without an `if __name__ == '__main__':` guard). Use "
        f"fewer workers, or workers=0 to read in threads. Its end: {error}"
    )


def _copy(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in batch.items()}
