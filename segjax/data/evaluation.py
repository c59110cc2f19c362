"""Evaluation batches: whole images, grouped by padded size, each exactly once."""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from segjax import ops
from segjax.data import instances
from segjax.data.examples import Reader, stack
from segjax.data.pad import reflect_to_size
from segjax.data.reading import listed, read_ahead
from segjax.data.spec import ExampleSpec, check_labels
from segjax.typing import Batch, Example

PADDING = -1
"""Example number, and `index`, of a padding row."""

Row = tuple[tuple[int, int], int]
"""Padded (height, width) of the batch, and the example's number."""


FILLED_PIXELS = 2**20
"""Batches of at most this many pixels have a fixed number of rows: computing dummy rows
takes less time than compiling a program for another number of rows."""


def plan(
    sizes: Sequence[tuple[int, int]],
    *,
    batch_size: int,
    multiple: int,
    max_shapes: int,
    max_pixels: int,
    processes: int = 1,
) -> list[list[Row]]:
    """Groups examples by padded size; a pure function of its arguments.

    Args:
        sizes: (height, width) of example 0, 1, ...
        batch_size: Largest number of rows of a batch.
        multiple: Padded sides are multiples of this.
        max_shapes: Maximum number of padded sizes.
        max_pixels: Batches of more pixels, all rows together, get fewer rows.
        processes: Number of rows is a multiple of this.

    Returns:
        The rows of each batch; all batches of a padded size have the same number. Full
        batches come first, in the order in which they fill up; then the incomplete
        ones, in the order in which their sizes first appeared, completed with `PADDING`
        rows.
    """
    batches: list[list[Row]] = []
    waiting: dict[tuple[int, int], list[Row]] = {}
    chosen = ops.bucket_sizes(sizes, multiple=multiple, limit=max_shapes)
    rows = {
        padded: _num_rows(count, padded, batch_size, max_pixels, processes)
        for padded, count in collections.Counter(chosen).items()
    }
    for number, padded in enumerate(chosen):
        group = waiting.setdefault(padded, [])
        group.append((padded, number))
        if len(group) == rows[padded]:
            batches.append(list(group))
            group.clear()
    for padded, group in waiting.items():
        if group:
            batches.append(group + [(padded, PADDING)] * (rows[padded] - len(group)))
    return batches


def _num_rows(
    count: int, size: tuple[int, int], batch_size: int, max_pixels: int, processes: int
) -> int:
    """Returns the rows of all batches of `count` images of one padded size.

    Large images are spread evenly over the fewest batches, so that there are fewer
    padding rows than batches (of one process).
    """
    pixels = size[0] * size[1]
    if batch_size * pixels <= FILLED_PIXELS:
        return batch_size
    fitting = min(batch_size, max_pixels // pixels) // processes * processes
    most = max(fitting, processes)
    even = -(-count // -(-count // most))
    return ops.round_up(even, processes)


def slots_by_size(
    planned: Sequence[list[Row]], counts: Sequence[int]
) -> dict[tuple[int, int], int]:
    """Returns the number of slots that no object of a padded size overflows.

    Args:
        planned: Returned by `plan`.
        counts: Of the objects of example 0, 1, ...

    Returns:
        For each padded size a power of two or a multiple of 64, so that splits share
        compiled programs.
    """
    slots: dict[tuple[int, int], int] = {}
    for size, number in itertools.chain.from_iterable(planned):
        count = 1 if number == PADDING else max(counts[number], 1)
        slots[size] = max(slots.get(size, 1), count)
    return {
        size: ops.round_up(count, min(64, 2 ** (count - 1).bit_length()))
        for size, count in slots.items()
    }


def largest(
    planned: Sequence[list[Row]], slots: Mapping[tuple[int, int], int] | None
) -> list[Row]:
    """Returns a batch that takes the most memory to evaluate.

    A mask takes a byte a pixel, and what networks keep is taken as 512 of them.
    """

    def memory(rows: list[Row]) -> int:
        height, width = size = rows[0][0]
        return len(rows) * height * width * (512 + (slots[size] if slots else 0))

    return max(planned, key=memory)


@dataclasses.dataclass(frozen=True)
class EvalExample:
    """Reads the example of a row and pads it to the size of its batch.

    Attributes:
        reader: Reads the split.
        spec: Dtypes and shapes of its examples.
        slots: For objects, by padded size; None for batches without objects.
    """

    reader: Reader
    spec: ExampleSpec
    slots: Mapping[tuple[int, int], int] | None

    def __call__(self, place: Row) -> Example:
        """Makes one row of a batch."""
        size, number = place
        index = {"index": np.int32(number)}
        if number == PADDING:
            made = self.spec.padding_row(size) | {"size": np.array(size, np.int32)}
            return made | self._slots(None, size) | index
        example = self.reader[number]
        self.spec.check(example, self.reader.where(number))
        made = self.spec.row(example, size, pad_image=reflect_to_size)
        made["size"] = np.array(example["label"].shape, np.int32)
        return made | self._slots(example, size) | index

    def _slots(
        self, example: Mapping[str, np.ndarray] | None, size: tuple[int, int]
    ) -> Example:
        if self.slots is None:
            return {}
        if example is None:
            made = instances.no_objects(size, limit=self.slots[size])
        else:
            found = instances.crop(example, instances.ALL)
            made = instances.fill(found, size, limit=self.slots[size])
        num_dropped = made.pop("num_dropped")
        assert not num_dropped, "slots_by_size has one slot for each object"
        return made


def read_of_each(
    reader: Reader,
    read: Callable[[int], Any],
    what: str,
    *,
    num_threads: int,
    slow_after: float,
) -> list[Any]:
    """Calls `read`, of `reader`, with the number of every example of its split.

    Args:
        reader: Reads the split.
        read: Such as `reader.size`.
        what: What it reads, for messages.
        num_threads: See `read_ahead`.
        slow_after: See `read_ahead`.
    """

    def describe(number: int) -> str:
        return f"{what} of {listed([number], reader.split)}"

    found = read_ahead(
        grain.MapDataset.range(len(reader)).map(read),
        describe,
        num_threads=num_threads,
        num_workers=0,
        slow_after=slow_after,
    )
    return list(found)


def batches(
    make: EvalExample,
    planned: list[list[Row]],
    *,
    part: tuple[int, int],
    num_classes: int,
    num_threads: int,
    slow_after: float,
) -> Generator[Batch, None, None]:
    """Reads the planned batches.

    Args:
        make: Makes the rows.
        planned: Returned by `plan`.
        part: The process that reads and the number of processes: of each batch, the
            first has the first rows, the next one the next.
        num_classes: Upper bound for the labels of the first batch.
        num_threads: See `read_ahead`.
        slow_after: See `read_ahead`.

    Raises:
        CorruptRecordError: If a record cannot be read, since the scores would then not
            cover the whole split.
        ValueError: If a label of the first batch is not a class id.
    """
    split, mine = make.reader.split, [_part(batch, *part) for batch in planned]
    if not mine:
        return

    def describe(place: int) -> str:
        numbers = [number for _, number in mine[place] if number != PADDING]
        return f"evaluation batch {place} ({listed(numbers, split)})"

    stream = grain.MapDataset.source(mine).map(
        lambda rows: stack([make(row) for row in rows])
    )
    stream = read_ahead(
        stream, describe, num_threads=num_threads, num_workers=0, slow_after=slow_after
    )
    with contextlib.closing(stream):
        for place, batch in enumerate(stream):
            if place == 0:
                check_labels(
                    batch["label"],
                    batch["index"],
                    split=split,
                    num_classes=num_classes,
                )
            yield batch


def _part(batch: list[Row], index: int, count: int) -> list[Row]:
    """Returns the rows of a batch that a process reads."""
    rows = len(batch) // count
    return batch[index * rows : (index + 1) * rows]
