"""Reading, checking and batching examples on the host."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import faults
from segjax.data.cache import DecodedCache
from segjax.data.objects import count_objects
from segjax.data.spec import arrays_of
from segjax.typing import Example, Field


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads a split's examples as arrays.

    Attributes:
        examples: The split.
        split: Its name.
        fields: Further entries to read besides `image` and `label`.
        objects: Whether to read `instances` and `objects` if an example has them.
        cache: Shared by the splits of a pipeline; None disables caching.
    """

    examples: Sequence[Any]  # Any: beartype would read one to check its type.
    split: str
    fields: Mapping[str, Field]
    objects: bool
    cache: DecodedCache | None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        """Reads `image` [H, W, K], `label` [H, W] as stored, and further entries.

        The arrays may be shared: do not write to them.

        Raises:
            CorruptRecordError: If it cannot be read, for any reason.
            SpecError: If it has a dtype or rank that batches cannot have.
        """
        if self.cache is None:
            return self._decode(number)
        return self.cache.get((self.split, number), lambda: self._decode(number))

    def size(self, number: int) -> tuple[int, int]:
        """Reads (height, width), from the file's header if the split supports it.

        Raises:
            CorruptRecordError: If it cannot be read.
        """
        if not hasattr(self.examples, "image_size"):
            height, width = self[number]["label"].shape
            return height, width
        with self._naming(number):
            return self.examples.image_size(number)  # type: ignore[attr-defined]

    def most_objects(self, number: int) -> int:
        """Counts the objects of an example, with those that have no pixel or class.

        Raises:
            CorruptRecordError: If it cannot be read.
        """
        example = self[number]
        with self._naming(number):
            return count_objects(example)

    def where(self, number: int) -> str:
        """Names a record in messages."""
        return f"record {number} of {self.split!r}"

    def without_cache(self) -> "Reader":
        """Returns a reader without cache, which is cheap to pickle."""
        return dataclasses.replace(self, cache=None)

    def _decode(self, number: int) -> dict[str, np.ndarray]:
        with self._naming(number):
            example = self.examples[number]
            return arrays_of(example, self.fields, objects=self.objects)

    @contextlib.contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise  # Not the record's fault.
        except faults.SpecError as error:
            raise faults.SpecError(f"{self.where(number)} {error}") from error
        except Exception as error:
            reason = faults.one_line(error)
            raise faults.CorruptRecordError(self.split, number, reason) from error


def stack(rows: Sequence[Example]) -> Example:
    """Stacks rows of equal size to a batch."""
    return {name: _stack([row[name] for row in rows]) for name in rows[0]}


def _stack(values: Sequence[Any]) -> np.ndarray:
    """Stacks to [B, ...]; on scalars, `np.array` is faster than `np.stack`."""
    return np.stack(values) if np.ndim(values[0]) else np.array(values)
