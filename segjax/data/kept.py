"""What a pipeline keeps from one of its streams to the next."""

from typing import Any

from segjax.data import evaluation, training
from segjax.data.cache import DecodedCache
from segjax.data.examples import Reader
from segjax.data.faults import Skipped
from segjax.data.form import Form
from segjax.data.instances import Overflow


class Kept:
    """Decoded examples, sizes, the form of examples, and what was told of already.

    Attributes:
        cache: Decoded examples of all splits.
        skipped: Records that training left out.
        overflow: Objects that found no slot in training.
        eval_overflow: The same in evaluation.
    """

    def __init__(self, pipeline: Any):
        """Nothing yet; `pipeline` has the settings."""
        self.cache = DecodedCache(pipeline.cache_bytes)
        self.skipped = Skipped(pipeline.skip_corrupt)
        self.overflow = Overflow("max_objects", pipeline.max_objects)
        self.eval_overflow = self.overflow
        if pipeline.eval_max_objects is not None:
            slots = pipeline.eval_max_objects
            self.eval_overflow = Overflow("eval_max_objects", slots)
        self._threads, self._slow_after = pipeline.threads, pipeline.slow_after
        self._form: Form | None = None
        self._sizes: dict[str, list[tuple[int, int]]] = {}

    def form(self, reader: Reader, *, skipped: Skipped | None) -> Form:
        """What all examples share: that of the first one that was ever asked for.

        Args:
            reader: Of the split to look at, if none was before.
            skipped: As `training.first_example` has it.
        """
        if self._form is None:
            first = training.first_example(reader, skipped, slow_after=self._slow_after)
            self._form = Form.of(first, reader.fields)
        return self._form

    def first_size(self, reader: Reader) -> tuple[int, int]:
        """(height, width) of the first example that can be read."""
        first = training.first_example(
            reader, self.skipped, slow_after=self._slow_after
        )
        height, width = first["label"].shape
        return height, width

    def sizes(self, reader: Reader) -> list[tuple[int, int]]:
        """(height, width) of every example of a split; read once."""
        if reader.split not in self._sizes:
            self._sizes[reader.split] = evaluation.image_sizes(
                reader, threads=self._threads, slow_after=self._slow_after
            )
        return self._sizes[reader.split]
