"""One example on the host: read, checked, joined to batches."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import faults
from segjax.data.cache import DecodedCache
from segjax.data.form import arrays_of
from segjax.typing import Example, Field


@dataclasses.dataclass(frozen=True)
class Reader:
    """A split's examples as arrays.

    Attributes:
        examples: The split.
        split: Its name.
        fields: Further entries to read beside `image` and `label`.
        objects: Whether to read `instances` and `objects`, where an example has them.
        cache: Shared by the splits of a pipeline; None keeps nothing.
    """

    examples: Sequence[Any]  # Of what, a type checker would read one to know.
    split: str
    fields: Mapping[str, Field]
    objects: bool
    cache: DecodedCache | None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        """`image` [H, W, K] and `label` [H, W] as stored, and what else is wanted.

        The arrays are not to be written to.

        Raises:
            CorruptRecordError: If it cannot be read, for whatever reason.
            FormError: If it is of a form that batches cannot have.
        """
        if self.cache is None:
            return self._decode(number)
        return self.cache.get((self.split, number), lambda: self._decode(number))

    def size(self, number: int) -> tuple[int, int]:
        """(height, width), from the file's header where the split can tell.

        Raises:
            CorruptRecordError: If it cannot be read.
        """
        if not hasattr(self.examples, "image_size"):
            height, width = self[number]["label"].shape
            return height, width
        with self._naming(number):
            return self.examples.image_size(number)  # type: ignore[attr-defined]

    def where(self, number: int) -> str:
        """What messages call a record."""
        return f"record {number} of {self.split!r}"

    def without_cache(self) -> "Reader":
        """The same examples, decoded at every read: small enough to send away."""
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
            raise  # Says nothing about the record.
        except faults.FormError as error:
            raise faults.FormError(f"{self.where(number)} {error}") from error
        except Exception as error:
            reason = faults.one_line(error)
            raise faults.CorruptRecordError(self.split, number, reason) from error


def stack(rows: Sequence[Example]) -> Example:
    """Joins rows of one size to a batch."""
    return {name: _join([row[name] for row in rows]) for name in rows[0]}


def _join(values: Sequence[Any]) -> np.ndarray:
    """[B, ...]; plain `array` is several times as fast as `stack` on scalars."""
    return np.stack(values) if np.ndim(values[0]) else np.array(values)
