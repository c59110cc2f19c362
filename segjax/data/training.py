"""The endless training stream: the order, the crops, the rows left out."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import grain
import numpy as np

from segjax.data import instances
from segjax.data.examples import Reader, stack
from segjax.data.faults import CorruptRecordError, Skipped
from segjax.data.form import Arrays, Form, check_labels
from segjax.data.instances import Overflow
from segjax.data.reading import Watch, listed, read_ahead
from segjax.typing import Batch, Example


@dataclasses.dataclass(frozen=True)
class TrainExample:
    """Reads an example and cuts it to the size of the batch.

    Attributes:
        reader: The split.
        form: Of its examples.
        seed: With the position in the stream, decides where to cut.
        size: (height, width) of the result.
        whole: Whether images must have that size already.
        limit: Slots for objects; None if they are not asked for.
    """

    reader: Reader
    form: Form
    seed: int
    size: tuple[int, int]
    whole: bool
    limit: int | None

    def __call__(self, position: int, number: int) -> Example:
        """Makes one row of a batch.

        Args:
            position: Place in the stream.
            number: Which example.

        Returns:
            `image`, `label` and mapped fields of `size`, other fields, `weight` and
            `index`, and the objects; also `record`, its number, and `fault`, why it
            could not be read, or "". What cannot be read becomes a row of weight 0.
        """
        index = np.int32(position % 2**31)
        try:
            made, fault = self._cut(position, number), ""
        except CorruptRecordError as error:
            made, fault = self._filler(), error.reason
        return made | {"index": index, "record": np.int32(number), "fault": fault}

    def _cut(self, position: int, number: int) -> Example:
        example = self.reader[number]
        self.form.check(example, self.reader.where(number))
        have = example["label"].shape
        if self.whole and have != self.size:
            raise ValueError(
                f"size=None needs images of one size, got {have[0]}x{have[1]} "
                f"(example {number}) beside {self.size[0]}x{self.size[1]}. "
                "Pass the (height, width) to train on."
            )
        top, left = self._corner(position, have)
        window = np.s_[top : top + self.size[0], left : left + self.size[1]]
        made = self.form.row(example, self.size, window=window)
        if self.limit is None:
            return made
        found = instances.without_crowds(instances.cut(example, window))
        return made | instances.fill(found, self.size, limit=self.limit)

    def _filler(self) -> Example:
        made = self.form.filler(self.size)
        if self.limit is None:
            return made
        return made | instances.filler(self.size, limit=self.limit)

    def _corner(self, position: int, have: tuple[int, int]) -> tuple[int, int]:
        rest = [max(0, h - want) for h, want in zip(have, self.size, strict=True)]
        if not any(rest):
            return 0, 0
        # Raw words of SeedSequence: NumPy promises never to change them.
        words = np.random.SeedSequence((self.seed, position)).generate_state(2)
        return int(words[0]) % (rest[0] + 1), int(words[1]) % (rest[1] + 1)


def first_example(
    reader: Reader, skipped: Skipped | None, *, slow_after: float
) -> Arrays:
    """The first example that can be read.

    Args:
        reader: The split.
        skipped: Where records that cannot be read are counted; None allows none.
        slow_after: See `read_ahead`.
    """

    def describe(number: int) -> str:
        return f"{reader.where(number)}, which tells dtypes and channels,"

    with Watch(describe, slow_after) as watch:
        for number in range(len(reader)):
            watch.wait_for(number)
            try:
                return reader[number]
            except CorruptRecordError as error:
                if skipped is None:
                    raise
                skipped.add(error)
    raise ValueError(f"no record of {reader.split!r} can be read.")


def batches(
    take: TrainExample,
    *,
    order: int,
    batch_size: int,
    share: slice,
    first_batch: int,
    num_classes: int,
    threads: int,
    workers: int,
    slow_after: float,
    skipped: Skipped,
    overflow: Overflow,
) -> Generator[Batch, None, None]:
    """Batches of an endless stream in which every epoch has each example once.

    Args:
        take: Makes the rows.
        order: Seed of the order.
        batch_size: Rows over all processes.
        share: Which of them are this process's: one of equal parts in a row.
        first_batch: The number of batches to skip.
        num_classes: Labels of the first batch are below it, or ignored.
        threads: See `read_ahead`.
        workers: Processes that read.
        slow_after: See `read_ahead`.
        skipped: Where rows that could not be read are counted.
        overflow: Where objects that found no slot are counted.

    Raises:
        ValueError: Once `skipped` allows no more, and for a label in the first batch
            that is no class.
    """
    reader = take.reader
    numbers = grain.MapDataset.range(len(reader)).shuffle(seed=order).repeat()
    rows_here = share.stop - share.start
    parts = slice(share.start // rows_here, None, batch_size // rows_here)

    def batched(stream: grain.MapDataset, join: Callable[[Any], Any]):
        # drop_remainder: Grain's length of an endless stream in batches of 1
        # overflows without it. Nothing is dropped; there is no end.
        all_parts = stream.batch(rows_here, drop_remainder=True, batch_fn=join)
        return all_parts[parts][first_batch:]

    rows = batched(numbers.map_with_index(take), stack)
    records: Any = batched(numbers, list)

    def describe(place: int) -> str:
        return f"batch {first_batch + place} ({listed(records[place], reader.split)})"

    stream = read_ahead(
        rows, describe, threads=threads, workers=workers, slow_after=slow_after
    )
    with contextlib.closing(stream):
        for place, batch in enumerate(stream):
            numbers = batch.pop("record")
            _count_skipped(numbers, batch.pop("fault"), reader.split, skipped)
            if place == 0:
                check_labels(
                    batch["label"],
                    numbers,
                    split=reader.split,
                    num_classes=num_classes,
                )
            overflow.take(batch, numbers, reader.split)
            yield batch


def _count_skipped(
    numbers: np.ndarray, faults: np.ndarray, split: str, skipped: Skipped
) -> None:
    for number, reason in zip(numbers, faults, strict=True):
        if reason:
            skipped.add(CorruptRecordError(split, int(number), str(reason)))
