"""State that the streams of a pipeline share."""

from collections.abc import Callable
from typing import Any

from segjax.data import evaluation, training
from segjax.data.cache import DecodedCache
from segjax.data.examples import Reader
from segjax.data.faults import SkippedRecords
from segjax.data.instances import Overflow
from segjax.data.spec import ExampleSpec


class PipelineState:
    """Cache, image sizes, example spec, and the warnings that were printed already.

    Attributes:
        cache: Decoded examples of all splits.
        skipped: Records that training skipped.
        overflow: Objects of training crops that did not fit into the slots.
    """

    def __init__(self, pipeline: Any):
        """Starts empty; `pipeline` has the settings."""
        self.cache = DecodedCache(pipeline.cache_bytes)
        self.skipped = SkippedRecords(pipeline.skip_corrupt)
        self.overflow = Overflow(pipeline.max_objects)
        self._threads, self._slow_after = pipeline.num_threads, pipeline.slow_after
        self._spec: ExampleSpec | None = None
        self._sizes: dict[str, list[tuple[int, int]]] = {}
        self._counts: dict[str, list[int]] = {}

    def spec(self, reader: Reader, *, skipped: SkippedRecords | None) -> ExampleSpec:
        """Returns the spec of all examples, read once from the first example.

        Args:
            reader: Reads the split to look at, if the spec is not known yet.
            skipped: See `training.first_example`.
        """
        if self._spec is None:
            first = training.first_example(reader, skipped, slow_after=self._slow_after)
            self._spec = ExampleSpec.of(first, reader.fields)
        return self._spec

    def first_size(self, reader: Reader) -> tuple[int, int]:
        """Reads the (height, width) of the first readable example."""
        first = training.first_example(
            reader, self.skipped, slow_after=self._slow_after
        )
        height, width = first["label"].shape
        return height, width

    def sizes(self, reader: Reader) -> list[tuple[int, int]]:
        """Returns the (height, width) of every example of a split; read once."""
        if reader.split not in self._sizes:
            self._sizes[reader.split] = self._of_each(reader, reader.size, "the size")
        return self._sizes[reader.split]

    def object_counts(self, reader: Reader) -> list[int]:
        """Returns the most objects that each example of a split has; read once."""
        if reader.split not in self._counts:
            self._counts[reader.split] = self._of_each(
                reader, reader.most_objects, "the objects"
            )
        return self._counts[reader.split]

    def _of_each(
        self, reader: Reader, read: Callable[[int], Any], what: str
    ) -> list[Any]:
        return evaluation.read_of_each(
            reader,
            read,
            what,
            num_threads=self._threads,
            slow_after=self._slow_after,
        )
