"""From a data set's examples to batches: the order, the crops, the reading ahead.

The training stream is one endless sequence of examples. Everything random about the
one at position i comes from (seed, i), and a batch is a slice of that sequence: so
neither workers, nor threads, nor processes, nor a restart can change it.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import evaluation, settings, training
from segjax.data.dataset import Dataset
from segjax.data.examples import Reader
from segjax.data.faults import CorruptRecordError
from segjax.data.kept import Kept
from segjax.typing import Batch, Field

_STREAM = "3"
"""Part of the fingerprint: goes up when the same data would give other batches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Batches of one data set, for training and for evaluation.

    Attributes:
        dataset: What to read: `image` and `label` of its examples, and the fields.
            All images have one dtype and as many channels, all labels one dtype.
        size: (height, width) of the training crops, in pixels; one number for
            squares. Smaller images are padded. None takes whole images, which must
            then all be equal in size. Evaluation always sees whole images.
        multiple: Evaluation extends images at the bottom and right by their mirror
            image until both sides divide by this; labels are ignored there.
        max_shapes: Different sizes that evaluation pads to, at most: each is compiled
            once. See `ops.bucket_sizes`.
        threads: Threads of this process that read, where no workers do.
        workers: Processes that read for training; 0 reads in threads of this one,
            as evaluation always does. A script that asks for processes must guard
            its start with `if __name__ == "__main__":`.
        cache_bytes: Decoded examples to keep in the memory of this process. Reader
            processes keep none.
        train_split: The split that `train_batches` reads.
        fields: Further entries of examples that batches have too, such as
            `{"weight_map": data.Field("linear")}`. Maps are cropped and padded (with
            0) as the image is.
        max_objects: Slots for objects in each image; batches then have `boxes`,
            `classes`, `masks`, `object_mask`, `crowd` and `size` too. Of more objects
            the largest are kept, and standard error says so. None: no objects.
        eval_max_objects: The same in evaluation, where images are whole; as many as in
            training unless given.
        skip_corrupt: How many different records of it may turn out unreadable (in
            each process). Each is told once on standard error, and its rows are all
            zero, with `weight` 0 and their usual `index`. Evaluation allows none.
        slow_after: Seconds of waiting for a batch after which standard error says
            which one; again after twice as long, and so on.
    """

    dataset: Dataset
    size: tuple[int, int] | int | None = None
    multiple: int = 32
    max_shapes: int = 8
    threads: int = 2
    workers: int = 0
    cache_bytes: int = 2**30
    train_split: str = "train"
    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    max_objects: int | None = None
    eval_max_objects: int | None = None
    skip_corrupt: int = 0
    slow_after: float = 30.0

    def __post_init__(self):
        settings.check_least(self)
        settings.check_fields(self.fields)
        if self.slow_after <= 0:
            raise ValueError(f"slow_after must be positive, got {self.slow_after}.")
        if self._crop_size is not None and min(self._crop_size) < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class id is a position in this tuple."""
        return self.dataset.classes

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist."""
        return tuple(self.dataset.splits)

    def num_examples(self, split: str) -> int:
        """Examples in a split. Raises ValueError if there is no such split."""
        return len(self._examples(split))

    def fingerprint(self) -> str:
        """A digest of the prepared data and of the settings that shape batches."""
        parts = (_STREAM, self.dataset.fingerprint, self.train_split)
        slots = (self.max_objects, self.eval_max_objects)
        objects = [n for n in slots if n is not None]
        fields = sorted((k, field.resample) for k, field in self.fields.items())
        text = repr((*parts, self._crop_size, self.multiple, fields, *objects))
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
        """An endless stream of batches; every epoch has each example once.

        A batch may hold the end of one epoch and the start of the next. Close the
        generator when done (`contextlib.closing`), so that its readers stop.

        Args:
            batch_size: Images per batch over all processes.
            seed: Sets the order and the crops; at least 0.
            first_batch: Where to start: the number of batches to skip.
            process_index: Which of the processes this is.
            process_count: Processes that share each batch. Process 0 has its first
                rows, process 1 those after them, and so on: put side by side, they
                are the batch that one process would have.

        Returns:
            Batches of batch_size / process_count rows on the host: `image`
            [B, H, W, K] and `label` [B, H, W] as stored, `weight` float32 and `index`
            int32 [B], the fields and the objects. `index` is the position in the
            stream. Where images are padded, labels are ignored.

        Raises:
            ValueError: If the split is missing or empty, the batch does not divide
                by the processes, or, while reading, if `size` is None and images
                differ in size, examples differ in dtype or channels, a field is
                missing, a label of the first batch is no class, or more records than
                `skip_corrupt` are unreadable.
            ReaderDiedError: While reading, if a reader process died.
        """
        share = settings.share_of(batch_size, process_index, process_count)
        # A seed's epochs are numbered upwards from it inside Grain, so that plain
        # seeds 0 and 1 would share their orders, one epoch apart.
        order, crops = np.random.SeedSequence(seed).generate_state(2)
        reader = self._reader(self.train_split)
        if not len(reader):
            raise ValueError(
                f"split {self.train_split!r} must have an example, got none. "
                "Prepare the data again, or train on another split."
            )
        # Reader processes get the plain split: a copy of the cache each is no gain.
        source = reader.without_cache() if self.workers else reader
        kept = self._kept
        form = kept.form(reader, skipped=kept.skipped)
        size = self._crop_size or kept.first_size(reader)
        return training.batches(
            training.TrainExample(
                source,
                form,
                int(crops),
                size,
                self.size is None,
                self.max_objects,
            ),
            order=int(order),
            batch_size=batch_size,
            share=share,
            first_batch=first_batch,
            num_classes=len(self.classes),
            threads=self.threads,
            workers=self.workers,
            slow_after=self.slow_after,
            skipped=kept.skipped,
            overflow=kept.overflow,
        )

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Generator[Batch, None, None]:
        """Every example of a split once over all processes, whole.

        There are at most `max_shapes` padded sizes, and one compiled program for
        each. Images of equal padded size share batches, in the split's order. The
        last batch of a size is filled up with rows of `weight` 0, ignored labels and
        `index` -1.

        All processes get equally many batches, of equal shapes in the same order, and
        each decodes its own rows only. For that, the sizes of all images are read
        once in each process: from the headers of their files in prepared data, and
        by decoding them where a data set's sequence has no `image_size(number)`.

        Args:
            split: Its name.
            batch_size: Rows of every batch over all processes.
            process_index: Which of the processes this is.
            process_count: Processes that share each batch. Process 0 has its first
                rows, process 1 those after them, and so on: put side by side, they
                are the batch that one process would have.

        Returns:
            Batches as `train_batches` has them, with `size` int32 [B, 2], (height,
            width) of each image before it was padded. `index` is the position in
            the split. A full batch comes as soon as it is full, the short ones last.

        Raises:
            ValueError: If there is no such split, the batch does not divide by the
                processes, or, while reading, if a record is unreadable or does not
                fit, as in `train_batches`.
        """
        share = settings.share_of(batch_size, process_index, process_count)
        return self._eval_batches(self._reader(split), batch_size, share)

    @property
    def skipped(self) -> tuple[CorruptRecordError, ...]:
        """The records that training left out in this process, as it met them."""
        return self._kept.skipped.records

    def _eval_batches(
        self, reader: Reader, batch_size: int, share: slice
    ) -> Generator[Batch, None, None]:
        if not len(reader):
            return
        planned = evaluation.plan(
            self._kept.sizes(reader),
            batch_size=batch_size,
            multiple=self.multiple,
            max_shapes=self.max_shapes,
        )
        slots = self.eval_max_objects or self.max_objects
        yield from evaluation.batches(
            evaluation.EvalExample(
                reader, self._kept.form(reader, skipped=None), slots
            ),
            planned,
            share=share,
            num_classes=len(self.classes),
            threads=self.threads,
            slow_after=self.slow_after,
            overflow=self._kept.eval_overflow,
        )

    @functools.cached_property
    def _kept(self) -> Kept:
        return Kept(self)

    @property
    def _crop_size(self) -> tuple[int, int] | None:
        size = self.size
        return (size, size) if isinstance(size, int) else size

    def _examples(self, split: str) -> Sequence[Any]:
        if split not in self.dataset.splits:
            raise ValueError(
                f"no split {split!r}: this data set has {', '.join(self.splits)}."
            )
        return self.dataset.splits[split]

    def _reader(self, split: str) -> Reader:
        examples, objects = self._examples(split), self.max_objects is not None
        return Reader(examples, split, self.fields, objects, self._kept.cache)
