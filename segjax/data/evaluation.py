"""Whole images in batches of equal size, every one once."""

import contextlib
import dataclasses
from collections.abc import Generator, Mapping, Sequence

import grain
import numpy as np

from segjax import ops
from segjax.data import instances
from segjax.data.examples import Reader, stack
from segjax.data.form import Form, check_labels
from segjax.data.instances import Overflow
from segjax.data.pad import mirror_to_size
from segjax.data.reading import listed, read_ahead
from segjax.typing import Batch, Example

FILLER = -1
"""The number, and `index`, of a row that stands for no example."""

Row = tuple[tuple[int, int], int]
"""The padded (height, width) of a batch, and the number of one of its examples."""


def plan(
    sizes: Sequence[tuple[int, int]],
    *,
    batch_size: int,
    multiple: int,
    max_shapes: int,
) -> list[list[Row]]:
    """Groups examples by padded size; a pure function of its arguments.

    Args:
        sizes: (height, width) of example 0, 1, ...
        batch_size: Rows of every batch.
        multiple: Padded sides divide by it.
        max_shapes: Padded sizes, at most.

    Returns:
        The rows of each batch. A batch comes where it is full; then the short ones,
        by the order in which their sizes first appeared, filled up with `FILLER`.
    """
    batches: list[list[Row]] = []
    waiting: dict[tuple[int, int], list[Row]] = {}
    chosen = ops.bucket_sizes(sizes, multiple=multiple, limit=max_shapes)
    for number, padded in enumerate(chosen):
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
        form: Of its examples.
        limit: Slots for objects; None if they are not asked for.
    """

    reader: Reader
    form: Form
    limit: int | None

    def __call__(self, place: Row) -> Example:
        """Returns one row of a batch."""
        size, number = place
        index = {"index": np.int32(number)}
        if number == FILLER:
            made = self.form.filler(size) | {"size": np.array(size, np.int32)}
            return made | self._slots(None, size) | index
        example = self.reader[number]
        self.form.check(example, self.reader.where(number))
        made = self.form.row(example, size, pad_image=mirror_to_size)
        made["size"] = np.array(example["label"].shape, np.int32)
        return made | self._slots(example, size) | index

    def _slots(
        self, example: Mapping[str, np.ndarray] | None, size: tuple[int, int]
    ) -> Example:
        if self.limit is None:
            return {}
        if example is None:
            return instances.filler(size, limit=self.limit)
        found = instances.cut(example, instances.ALL)
        return instances.fill(found, size, limit=self.limit)


def image_sizes(
    reader: Reader, *, threads: int, slow_after: float
) -> list[tuple[int, int]]:
    """(height, width) of every example of a split."""

    def describe(number: int) -> str:
        return f"the size of {listed([number], reader.split)}"

    stream = grain.MapDataset.range(len(reader)).map(reader.size)
    sizes = read_ahead(
        stream, describe, threads=threads, workers=0, slow_after=slow_after
    )
    return list(sizes)


def batches(
    make: EvalExample,
    planned: list[list[Row]],
    *,
    share: slice,
    num_classes: int,
    threads: int,
    slow_after: float,
    overflow: Overflow,
) -> Generator[Batch, None, None]:
    """Reads the planned batches.

    Args:
        make: Makes the rows.
        planned: What `plan` returned.
        share: Which rows of each batch to read.
        num_classes: Labels of the first batch are below it, or ignored.
        threads: See `read_ahead`.
        slow_after: See `read_ahead`.
        overflow: Where objects that found no slot are counted.

    Raises:
        CorruptRecordError: If a record cannot be read: scores would not be of all.
        ValueError: For a label in the first batch that is no class.
    """
    split = make.reader.split

    def describe(place: int) -> str:
        numbers = [number for _, number in planned[place][share] if number != FILLER]
        return f"evaluation batch {place} ({listed(numbers, split)})"

    rows = [row for batch in planned for row in batch[share]]
    if not rows:
        return
    stream = grain.MapDataset.source(rows).map(make)
    stream = stream.batch(len(planned[0][share]), batch_fn=stack)
    stream = read_ahead(
        stream, describe, threads=threads, workers=0, slow_after=slow_after
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
            overflow.take(batch, batch["index"], split)
            yield batch
