"""Whole images in batches of equal size, every one once."""

import dataclasses
from collections.abc import Generator, Iterable

import grain
import numpy as np

from segjax.data.examples import Reader, filler, split_void, stack
from segjax.data.pad import mirror_to_size, pad_to_size, padded_size
from segjax.data.reading import listed, read_ahead
from segjax.typing import Batch, Example

FILLER = -1
"""The number, and `index`, of a row that stands for no example."""

Row = tuple[tuple[int, int], int]
"""The padded (height, width) of a batch, and the number of one of its examples."""


def plan(
    sizes: Iterable[tuple[int, int]], *, batch_size: int, multiple: int
) -> list[list[Row]]:
    """Groups examples by padded size; a pure function of its arguments.

    Args:
        sizes: (height, width) of example 0, 1, ...
        batch_size: Rows of every batch.
        multiple: Sides are padded until they divide by it.

    Returns:
        The rows of each batch. A batch comes where it is full; then the short ones,
        by the order in which their sizes first appeared, filled up with `FILLER`.
    """
    batches: list[list[Row]] = []
    waiting: dict[tuple[int, int], list[Row]] = {}
    for number, size in enumerate(sizes):
        padded = padded_size(size, multiple)
        group = waiting.setdefault(padded, [])
        group.append((padded, number))
        if len(group) == batch_size:
            batches.append(list(group))
            group.clear()
    for padded, group in waiting.items():
        if group:
            batches.append(group + [(padded, FILLER)] * (batch_size - len(group)))
    return batches


@dataclasses.dataclass(frozen=True)
class EvalExample:
    """Reads the example of a row and pads it to the size of its batch.

    Attributes:
        reader: The split.
    """

    reader: Reader

    def __call__(self, row: Row) -> Example:
        """Returns `image`, `label`, `valid`, `weight` and `index`."""
        size, number = row
        if number == FILLER:
            return filler(size) | {"index": np.int32(FILLER)}
        example = self.reader[number]
        arrays = split_void(example["image"], example["label"])
        padded = {name: pad_to_size(x, size) for name, x in arrays.items()}
        padded["image"] = mirror_to_size(arrays["image"], size)
        return padded | {"weight": np.float32(1), "index": np.int32(number)}


def image_sizes(reader: Reader, *, slow_after: float) -> list[tuple[int, int]]:
    """(height, width) of every example of a split."""

    def describe(number: int) -> str:
        return f"the size of {listed([number], reader.split)}"

    stream = grain.MapDataset.range(len(reader)).map(reader.size)
    return list(read_ahead(stream, describe, workers=0, slow_after=slow_after))


def batches(
    reader: Reader, planned: list[list[Row]], *, share: slice, slow_after: float
) -> Generator[Batch, None, None]:
    """Reads the planned batches.

    Args:
        reader: The split.
        planned: What `plan` returned.
        share: Which rows of each batch to read.
        slow_after: See `read_ahead`.

    Raises:
        CorruptRecordError: If a record cannot be read: scores would not be of all.
    """

    def describe(place: int) -> str:
        numbers = [number for _, number in planned[place][share] if number != FILLER]
        return f"evaluation batch {place} ({listed(numbers, reader.split)})"

    rows = [row for batch in planned for row in batch[share]]
    if rows:
        stream = grain.MapDataset.source(rows).map(EvalExample(reader))
        stream = stream.batch(len(planned[0][share]), batch_fn=stack)
        yield from read_ahead(stream, describe, workers=0, slow_after=slow_after)
