"""The infinite training stream: order, crops and skipped records."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import grain
import numpy as np

from segjax.data import crops, instances
from segjax.data.examples import Reader, stack
from segjax.data.faults import CorruptRecordError, SkippedRecords
from segjax.data.instances import Overflow
from segjax.data.reading import Watch, listed, read_ahead
from segjax.data.spec import Arrays, ExampleSpec, check_labels
from segjax.errors import UserError
from segjax.typing import Batch, Example


@dataclasses.dataclass(frozen=True)
class TrainExample:
    """Reads an example and crops it to the size of the batch.

    Attributes:
        reader: Reads the split.
        spec: Dtypes and shapes of its examples.
        seed: Determines the crop, together with the position in the stream.
        size: (height, width) of the crop.
        whole: Whether images must have this size already.
        limit: Slots for objects; None for batches without objects.
        placement: What a share of the crops holds; None for crops anywhere.
    """

    reader: Reader
    spec: ExampleSpec
    seed: int
    size: tuple[int, int]
    whole: bool
    limit: int | None
    placement: crops.CropPlacement | None

    def __call__(self, position: int, number: int) -> Example:
        """Makes one row of a batch.

        Args:
            position: Position in the stream.
            number: Number of the example.

        Returns:
            `image`, `label` and map fields of `size`, other fields, `weight`, `index`
            and the objects; also `record`, the example's number, and `fault`, the
            reason why it could not be read, or "". An unreadable record becomes a row
            of weight 0.
        """
        index = np.int32(position % 2**31)
        try:
            made, fault = self._crop(position, number), ""
        except CorruptRecordError as error:
            made, fault = self._padding(), error.reason
        return made | {"index": index, "record": np.int32(number), "fault": fault}

    def _crop(self, position: int, number: int) -> Example:
        example = self.reader[number]
        self.spec.check(example, self.reader.where(number))
        have = example["label"].shape
        if self.whole and have != self.size:
            raise UserError(
                f"size=None needs images of one size, got {have[0]}x{have[1]} "
                f"(example {number}) and {self.size[0]}x{self.size[1]}. "
                "Pass the (height, width) of the training crops."
            )
        top, left = crops.corner(
            self.seed, position, example, self.size, self.placement
        )
        window = np.s_[top : top + self.size[0], left : left + self.size[1]]
        made = self.spec.row(example, self.size, window=window)
        if self.limit is None:
            return made
        found = instances.without_crowds(instances.crop(example, window))
        return made | instances.fill(found, self.size, limit=self.limit)

    def _padding(self) -> Example:
        made = self.spec.padding_row(self.size)
        if self.limit is None:
            return made
        return made | instances.no_objects(self.size, limit=self.limit)


def first_example(
    reader: Reader, skipped: SkippedRecords | None, *, slow_after: float
) -> Arrays:
    """Returns the first readable example.

    Args:
        reader: Reads the split.
        skipped: Counts unreadable records; None raises at the first one.
        slow_after: See `read_ahead`.
    """

    def describe(number: int) -> str:
        return f"{reader.where(number)}, read for its dtypes and channels,"

    with Watch(describe, slow_after) as watch:
        for number in range(len(reader)):
            watch.wait_for(number)
            try:
                return reader[number]
            except CorruptRecordError as error:
                if skipped is None:
                    raise
                skipped.add(error)
    raise UserError(
        f"no record of {reader.split!r} can be read. Prepare the data again."
    )


def batches(
    take: TrainExample,
    *,
    order: int,
    batch_size: int,
    rows: slice,
    first_batch: int,
    num_classes: int,
    num_threads: int,
    num_workers: int,
    slow_after: float,
    skipped: SkippedRecords,
    overflow: Overflow,
) -> Generator[Batch, None, None]:
    """Yields batches forever; every epoch has each example once.

    Args:
        take: Makes the rows.
        order: Seed of the shuffling.
        batch_size: Rows over all processes.
        rows: The rows of this process: one of equal contiguous parts.
        first_batch: Number of batches to skip.
        num_classes: Upper bound for the labels of the first batch.
        num_threads: See `read_ahead`.
        num_workers: See `read_ahead`.
        slow_after: See `read_ahead`.
        skipped: Counts unreadable records.
        overflow: Counts the objects that did not fit into the slots.

    Raises:
        ValueError: If there are more unreadable records than `skipped` allows, or a
            label of the first batch is not a class id.
    """
    reader = take.reader
    numbers = grain.MapDataset.range(len(reader)).shuffle(seed=order).repeat()
    rows_here = rows.stop - rows.start
    parts = slice(rows.start // rows_here, None, batch_size // rows_here)

    def batched(stream: grain.MapDataset, join: Callable[[Any], Any]):
        # drop_remainder: without it, Grain's length of an infinite stream in batches
        # of 1 overflows. An infinite stream has no remainder to drop.
        all_parts = stream.batch(rows_here, drop_remainder=True, batch_fn=join)
        return all_parts[parts][first_batch:]

    examples = batched(numbers.map_with_index(take), stack)
    records: Any = batched(numbers, list)

    def describe(place: int) -> str:
        return f"batch {first_batch + place} ({listed(records[place], reader.split)})"

    stream = read_ahead(
        examples,
        describe,
        num_threads=num_threads,
        num_workers=num_workers,
        slow_after=slow_after,
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
    numbers: np.ndarray, faults: np.ndarray, split: str, skipped: SkippedRecords
) -> None:
    for number, reason in zip(numbers, faults, strict=True):
        if reason:
            skipped.add(CorruptRecordError(split, int(number), str(reason)))
