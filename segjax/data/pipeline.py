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

import grain
import numpy as np
from absl import flags

from segjax.data.cache import DecodedCache
from segjax.data.dataset import Dataset
from segjax.data.evaluation import padded_batches
from segjax.data.examples import Reader, TrainExample, stack
from segjax.typing import Batch

_THREADS = 2
_BATCHES_AHEAD = 4
_STREAM = "2"
"""Part of the fingerprint: goes up when the same data would give other batches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Batches of one data set, for training and for evaluation.

    Attributes:
        dataset: What to read; `image` and `label` of its examples are used.
        size: (height, width) of the training crops, in pixels; one number for
            squares. Smaller images are padded. None takes whole images, which must
            then all be equal in size. Evaluation always sees whole images.
        multiple: Evaluation extends images at the bottom and right by their mirror
            image until both sides divide by this; what was added is not valid.
        workers: Processes that read for training; 0 reads in threads of this one,
            as evaluation always does. A script that asks for processes must guard
            its start with `if __name__ == "__main__":`.
        cache_bytes: Decoded examples to keep in the memory of this process. Reader
            processes keep none.
        train_split: The split that `train_batches` reads.
    """

    dataset: Dataset
    size: tuple[int, int] | int | None = None
    multiple: int = 32
    workers: int = 0
    cache_bytes: int = 2**30
    train_split: str = "train"

    def __post_init__(self):
        for name, least in (("multiple", 1), ("workers", 0), ("cache_bytes", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}."
                )
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
        text = repr((*parts, self._crop_size, self.multiple))
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
            process_count: Processes that share each batch. The rows of process r
                are r, r + process_count, ... of the whole batch.

        Returns:
            Batches of batch_size / process_count rows on the host: `image` uint8
            [B, H, W, 3], `label` int32 and `valid` bool [B, H, W], `weight` float32
            and `index` int32 [B]. `index` is the position in the stream.

        Raises:
            ValueError: If the split is missing or empty, the batch does not divide
                by the processes, or, while reading, if `size` is None and images
                differ in size.
        """
        if batch_size < 1 or batch_size % process_count:
            raise ValueError(
                f"batch_size must be a positive multiple of the {process_count} "
                f"processes, got {batch_size}. Change it to a multiple."
            )
        # A seed's epochs are numbered upwards from it inside Grain, so that plain
        # seeds 0 and 1 would share their orders, one epoch apart.
        order, crops = np.random.SeedSequence(seed).generate_state(2)
        reader = self._reader(self.train_split)
        if not len(reader):
            raise ValueError(
                f"split {self.train_split!r} must have an example, got none. "
                "Prepare the data again, or train on another split."
            )
        take = TrainExample(
            int(crops), self._crop_size or reader[0]["label"].shape, self.size is None
        )
        # Reader processes get the plain split: a copy of the cache each is no gain.
        examples = reader.without_cache() if self.workers else reader
        stream = grain.MapDataset.source(examples).shuffle(seed=int(order)).repeat()
        stream = stream.map_with_index(take)[process_index::process_count]
        # drop_remainder: Grain's length of an endless stream in batches of 1
        # overflows without it. Nothing is dropped; there is no end.
        stream = stream.batch(
            batch_size // process_count, drop_remainder=True, batch_fn=stack
        )
        return _read(stream[first_batch:], workers=self.workers)

    def eval_batches(
        self, split: str, *, batch_size: int
    ) -> Generator[Batch, None, None]:
        """Every example of a split once, whole.

        Images whose padded sizes are equal share batches, in the split's order;
        so there is one compiled program per padded size. The last batch of a size
        is filled up with rows of `weight` 0, `valid` False and `index` -1.

        Args:
            split: Its name.
            batch_size: Rows of every batch.

        Returns:
            Batches as `train_batches` has them; `index` is the position in the
            split. A full batch comes as soon as it is full, the short ones last.

        Raises:
            ValueError: If there is no such split.
        """
        stream = _read(grain.MapDataset.source(self._reader(split)), workers=0)
        return padded_batches(stream, batch_size=batch_size, multiple=self.multiple)

    @functools.cached_property
    def _cache(self) -> DecodedCache:
        return DecodedCache(self.cache_bytes)

    @property
    def _crop_size(self) -> tuple[int, int] | None:
        size = self.size
        return (size, size) if isinstance(size, int) else size

    def _examples(self, split: str) -> Sequence[Mapping[str, Any]]:
        if split not in self.dataset.splits:
            raise ValueError(
                f"no split {split!r}: this data set has {', '.join(self.splits)}."
            )
        return self.dataset.splits[split]

    def _reader(self, split: str) -> Reader:
        return Reader(self._examples(split), split, self._cache)


def _read(stream: grain.MapDataset, *, workers: int) -> Generator[Any, None, None]:
    """Elements in order, read ahead; closing it stops the readers."""
    options = grain.ReadOptions(
        num_threads=1 if workers else _THREADS, prefetch_buffer_size=_BATCHES_AHEAD
    )
    elements = stream.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads them; outside absl's app.
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        )
    iterator = iter(elements)
    try:
        if workers:
            # Out of the shared memory, which must be free before Python exits.
            yield from map(_copy, iterator)
        else:
            yield from iterator
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise RuntimeError(
            "a reader process died (out of memory, killed, or started by a script "
            "without an `if __name__ == '__main__':` guard). Use fewer workers, or "
            f"workers=0 to read in threads. Its end: {error}"
        ) from error
    finally:
        iterator.close()


def _copy(batch: Batch) -> Batch:
    return {name: np.array(x) for name, x in batch.items()}
