"""One example on the host: read, split into label and valid, joined to batches."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import faults
from segjax.data.cache import DecodedCache
from segjax.data.pad import pad_to_size
from segjax.typing import VOID, Example


@dataclasses.dataclass(frozen=True)
class Reader:
    """A split's examples as arrays.

    Attributes:
        examples: The split.
        split: Its name.
        names: What to read where an example has it: `image` and `label`, which every
            one has; `instances` and `objects` if wanted.
        cache: Shared by the splits of a pipeline; None keeps nothing.
    """

    examples: Sequence[Any]  # Of what, a type checker would read one to know.
    split: str
    names: tuple[str, ...]
    cache: DecodedCache | None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        """`image` uint8 [H, W, 3], `label` uint8 [H, W], and what else is wanted.

        The arrays are not to be written to.

        Raises:
            CorruptRecordError: If it cannot be read, for whatever reason.
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

    def without_cache(self) -> "Reader":
        """The same examples, decoded at every read: small enough to send away."""
        return dataclasses.replace(self, cache=None)

    def _decode(self, number: int) -> dict[str, np.ndarray]:
        with self._naming(number):
            example = self.examples[number]
            arrays = {k: np.asarray(example[k]) for k in self.names if k in example}
            size = arrays["label"].shape
            for key in ("image", "instances"):
                want = (*size, 3) if key == "image" else size
                if key in arrays and arrays[key].shape != want:
                    raise ValueError(
                        f"{example.get('name', 'it')} needs an image [H, W, 3] and "
                        f"maps [H, W], got {key} {arrays[key].shape} and label {size}"
                    )
        return arrays

    @contextlib.contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise  # Says nothing about the record.
        except Exception as error:
            reason = faults.one_line(error)
            raise faults.CorruptRecordError(self.split, number, reason) from error


def row(image: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> Example:
    """One row of a batch but its `index`, padded to `size`: zeros, and void labels.

    `stack` makes `valid` of the label, once for all rows: on images as small as digits
    calls of NumPy are what a row costs.
    """
    return {
        "image": pad_to_size(image, size),
        "label": pad_to_size(label, size, value=VOID),
        "weight": np.float32(1),
    }


def filler(size: tuple[int, int]) -> Example:
    """A row that counts nowhere: zeros and void; all that a row has but `index`."""
    return {
        "image": np.zeros((*size, 3), np.uint8),
        "label": np.full(size, VOID, np.uint8),
        "weight": np.float32(0),
    }


def stack(rows: Sequence[Example]) -> Example:
    """Joins rows of one size to a batch; the void id becomes `valid`.

    `label` is 0 where it was void, so that any lookup is safe.
    """
    batch = {name: _join([row[name] for row in rows]) for name in rows[0]}
    valid = batch["label"] != VOID
    label = np.where(valid, batch["label"], 0).astype(np.int32)
    return batch | {"label": label, "valid": valid}


def _join(values: Sequence[Any]) -> np.ndarray:
    """[B, ...]; plain `array` is several times as fast as `stack` on scalars."""
    return np.stack(values) if np.ndim(values[0]) else np.array(values)
