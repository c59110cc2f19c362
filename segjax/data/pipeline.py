"""From a data set's examples to batches: shuffling, crops, prefetching.

The training stream is one infinite sequence of examples. All randomness of the example
at position i comes from (seed, i), and a batch is a slice of that sequence. So the
stream does not depend on workers, threads, processes or restarts.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import evaluation, settings, training
from segjax.data.crops import CropPlacement
from segjax.data.dataset import Dataset
from segjax.data.examples import Reader
from segjax.data.faults import CorruptRecordError
from segjax.data.state import PipelineState
from segjax.errors import UserError
from segjax.typing import Batch, Field

_STREAM = "3"
"""Version of the batches made from the same data; part of the fingerprint."""

_EvalPlan = tuple[list[list[evaluation.Row]], dict[tuple[int, int], int] | None]
"""The rows of each batch, and the slots for objects by padded size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Batches of one data set, for training and for evaluation.

    Attributes:
        dataset: The data set; `image` and `label` of its examples are read, and the
            fields. All images have the same dtype and number of channels, all labels
            the same dtype.
        size: (height, width) of the training crops, in pixels; one number for
            squares. Smaller images are padded. None uses whole images, which must then
            have equal sizes. Evaluation always uses whole images.
        multiple: Evaluation pads images by reflection, at the bottom and right, until
            both sides are multiples of this; labels are ignored there.
        max_shapes: Maximum number of different padded sizes in evaluation; each is
            compiled once. See `ops.bucket_sizes`.
        eval_pixels: Pixels of an evaluation batch, all rows together: batches of larger
            images get fewer rows, down to one, or one for each process.
        num_threads: Reader threads of this process, if there are no workers.
        num_workers: Reader processes for training; 0 reads in threads of this process,
            as evaluation always does. A script with reader processes needs the guard
            `if __name__ == "__main__":`.
        cache_bytes: Bytes of decoded examples to cache in this process. Reader
            processes do not cache.
        train_split: The split that `train_batches` reads.
        fields: Further entries of examples to include in batches, such as
            `{"weight_map": data.Field("linear")}`. Maps are cropped and padded (with
            0) like the image.
        max_objects: Slots for the objects of a training crop; batches then also have
            `boxes`, `classes`, `masks`, `object_mask`, `crowd` and `size`. If there are
            more objects, the largest are kept and a warning is printed. Evaluation has
            slots for all objects of an image. None: no objects.
        placement: Places a share of the training crops on chosen classes, such as
            rare ones, or on objects: see `ClassCrops` and `ObjectCrops`.
        skip_corrupt: Maximum number of different unreadable training records (per
            process). Each is reported once on standard error, and its rows are zeros
            with `weight` 0 and their usual `index`. Evaluation allows none.
        slow_after: Seconds of waiting for a batch after which a warning is printed to
            standard error; another one after twice as long, and so on.
    """

    dataset: Dataset
    size: tuple[int, int] | int | None = None
    multiple: int = 32
    max_shapes: int = 8
    eval_pixels: int = 2**22
    num_threads: int = 2
    num_workers: int = 0
    cache_bytes: int = 2**29
    train_split: str = "train"
    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    max_objects: int | None = None
    placement: CropPlacement | None = None
    skip_corrupt: int = 0
    slow_after: float = 30.0

    def __post_init__(self):
        settings.check_minima(self)
        settings.check_fields(self.fields)
        if self.slow_after <= 0:
            raise UserError(f"slow_after must be positive, got {self.slow_after}.")
        if self._crop_size is not None and min(self._crop_size) < 1:
            raise UserError(f"size must be at least 1 pixel, got {self.size}.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class id is a position in this tuple."""
        return self.dataset.classes

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist."""
        return tuple(self.dataset.splits)

    def num_examples(self, split: str) -> int:
        """Returns a split's number of examples; ValueError for an unknown split."""
        return len(self._examples(split))

    def fingerprint(self) -> str:
        """Digests the prepared data and the settings that determine batches."""
        parts = (_STREAM, self.dataset.fingerprint, self.train_split)
        objects = [] if self.max_objects is None else [self.max_objects]
        fields = sorted((k, field.resample) for k, field in self.fields.items())
        crops = [self.placement] if self.placement else []
        text = repr((*parts, self._crop_size, self.multiple, fields, *objects, *crops))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def train_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        first_batch: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Generator[Batch, None, None]:
        """Yields batches forever; every epoch has each example once.

        A batch may span the end of one epoch and the start of the next. Close the
        generator when done (`contextlib.closing`) to stop its readers.

        Args:
            batch_size: Images per batch over all processes.
            seed: Determines the order and the crops; at least 0.
            first_batch: Number of batches to skip.
            process_index: Index of this process.
            process_count: Processes that share each batch. Process 0 has its first
                rows, process 1 the next, and so on: concatenated, they are the batch
                that a single process would have.

        Returns:
            Batches of batch_size / process_count rows on the host: `image`
            [B, H, W, K] and `label` [B, H, W] as stored, `weight` float32 and `index`
            int32 [B], the fields and the objects. `index` is the position in the
            stream. Padded pixels have ignored labels.

        Raises:
            ValueError: If the split is missing or empty, the batch size is not a
                multiple of the processes, or, while reading, if `size` is None and
                images differ in size, examples differ in dtype or channels, a field is
                missing, a label of the first batch is not a class id, or more than
                `skip_corrupt` records are unreadable.
            ReaderDiedError: While reading, if a reader process died.
        """
        rows = settings.process_rows(batch_size, process_index, process_count)
        # Grain seeds epoch e with seed + e, so consecutive seeds would share orders,
        # one epoch apart.
        order, crops = np.random.SeedSequence(seed).generate_state(2)
        reader = self._reader(self.train_split)
        if not len(reader):
            raise UserError(
                f"split {self.train_split!r} is empty: needed at least one example. "
                "Prepare the data again, or train on another split."
            )
        # No cache in reader processes: each would hold its own copy.
        source = reader.without_cache() if self.num_workers else reader
        state = self._state
        spec = state.spec(reader, skipped=state.skipped)
        size = self._crop_size or state.first_size(reader)
        return training.batches(
            training.TrainExample(
                source,
                spec,
                int(crops),
                size,
                self.size is None,
                self.max_objects,
                self.placement,
            ),
            order=int(order),
            batch_size=batch_size,
            rows=rows,
            first_batch=first_batch,
            num_classes=len(self.classes),
            num_threads=self.num_threads,
            num_workers=self.num_workers,
            slow_after=self.slow_after,
            skipped=state.skipped,
            overflow=state.overflow,
        )

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Generator[Batch, None, None]:
        """Yields every example of a split once over all processes, uncropped.

        There are at most `max_shapes` padded sizes, and one compiled program for each.
        Images of equal padded size share batches, in the split's order. All batches of
        a size have the same number of rows: `batch_size`, or fewer for large images
        (`eval_pixels`), which are spread evenly over their batches. The last batch of a
        size is completed with rows of `weight` 0, ignored labels and `index` -1.

        All processes get the same number of batches, of equal shapes in the same order,
        and each decodes its own rows only. For this, every process reads the sizes of
        all images once: from file headers in prepared data, or by decoding the images
        if the data set's sequence has no `image_size(number)`. With `max_objects`, it
        also decodes all images once and counts their objects: batches of a padded size
        have slots for the most that one of its images has, rounded up.

        Args:
            split: Name of the split.
            batch_size: Rows of a batch over all processes, at most.
            process_index: Index of this process.
            process_count: Processes that share each batch. Process 0 has its first
                rows, process 1 the next, and so on: concatenated, they are the batch
                that a single process would have.

        Returns:
            Batches like those of `train_batches`, with `size` int32 [B, 2], the
            (height, width) of each image before padding. `index` is the position in
            the split. Full batches come first, incomplete ones last.

        Raises:
            ValueError: If there is no such split, the batch size is not a multiple of
                the processes, or, while reading, if a record is unreadable or
                inconsistent, as in `train_batches`.
        """
        settings.process_rows(batch_size, process_index, process_count)
        reader = self._reader(split)
        planned = self._eval_plan(reader, batch_size, process_count)
        return self._read_eval(reader, planned, (process_index, process_count))

    def largest_eval_batch(
        self,
        split: str,
        *,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Batch | None:
        """Reads the batch of `eval_batches` that takes the most memory.

        What evaluates it has the memory for all others. None for an empty split.
        """
        settings.process_rows(batch_size, process_index, process_count)
        reader = self._reader(split)
        planned, slots = self._eval_plan(reader, batch_size, process_count)()
        if not planned:
            return None
        chosen = [evaluation.largest(planned, slots)]
        batches = self._read_eval(
            reader, lambda: (chosen, slots), (process_index, process_count)
        )
        with contextlib.closing(batches):
            return next(batches)

    @property
    def skipped(self) -> tuple[CorruptRecordError, ...]:
        """The records that training skipped in this process, in order."""
        return self._state.skipped.records

    def _eval_plan(
        self, reader: Reader, batch_size: int, processes: int
    ) -> Callable[[], _EvalPlan]:
        """Returns a function that reads the images' sizes, counts objects and plans."""

        def plan() -> _EvalPlan:
            if not len(reader):
                return [], None
            planned = evaluation.plan(
                self._state.sizes(reader),
                batch_size=batch_size,
                multiple=self.multiple,
                max_shapes=self.max_shapes,
                max_pixels=self.eval_pixels,
                processes=processes,
            )
            if self.max_objects is None:
                return planned, None
            counts = self._state.object_counts(reader)
            return planned, evaluation.slots_by_size(planned, counts)

        return plan

    def _read_eval(
        self,
        reader: Reader,
        planned: Callable[[], _EvalPlan],
        part: tuple[int, int],
    ) -> Generator[Batch, None, None]:
        batches, slots = planned()
        if not batches:
            return
        spec = self._state.spec(reader, skipped=None)
        yield from evaluation.batches(
            evaluation.EvalExample(reader, spec, slots),
            batches,
            part=part,
            num_classes=len(self.classes),
            num_threads=self.num_threads,
            slow_after=self.slow_after,
        )

    @functools.cached_property
    def _state(self) -> PipelineState:
        return PipelineState(self)

    @property
    def _crop_size(self) -> tuple[int, int] | None:
        size = self.size
        return (size, size) if isinstance(size, int) else size

    def _examples(self, split: str) -> Sequence[Any]:
        if split not in self.dataset.splits:
            raise UserError(
                f"no split {split!r}: this data set has {', '.join(self.splits)}."
            )
        return self.dataset.splits[split]

    def _reader(self, split: str) -> Reader:
        examples, objects = self._examples(split), self.max_objects is not None
        return Reader(examples, split, self.fields, objects, self._state.cache)
