"""One example on the host: read, split into label and valid, joined to batches."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data import faults
from segjax.data.cache import DecodedCache
from segjax.typing import VOID, Example


@dataclasses.dataclass(frozen=True)
class Reader:
    """A split's examples as `image` and `label`.

    Attributes:
        examples: The split.
        split: Its name.
        cache: Shared by the splits of a pipeline; None keeps nothing.
    """

    examples: Sequence[Any]  # Of what, a type checker would read one to know.
    split: str
    cache: DecodedCache | None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        """`image` uint8 [H, W, 3] and `label` uint8 [H, W]; not to be written to.

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
            image, label = np.asarray(example["image"]), np.asarray(example["label"])
            if image.shape != (*label.shape, 3):
                raise ValueError(
                    f"{example.get('name', 'it')} needs an image [H, W, 3] and a label "
                    f"[H, W], got {image.shape} and {label.shape}"
                )
        return {"image": image, "label": label}

    @contextlib.contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise  # Says nothing about the record.
        except Exception as error:
            reason = faults.one_line(error)
            raise faults.CorruptRecordError(self.split, number, reason) from error


def split_void(image: np.ndarray, label: np.ndarray) -> Example:
    """Turns the void id into `valid`; `label` is 0 there, so any lookup is safe."""
    valid = label != VOID
    return {
        "image": image,
        "label": np.where(valid, label, 0).astype(np.int32),
        "valid": valid,
    }


def filler(size: tuple[int, int]) -> Example:
    """A row that counts nowhere, all zero; all that a row has but `index`."""
    return {
        "image": np.zeros((*size, 3), np.uint8),
        "label": np.zeros(size, np.int32),
        "valid": np.zeros(size, bool),
        "weight": np.float32(0),
    }


def stack(examples: Sequence[Example]) -> Example:
    """Joins examples of one size along a new first axis."""
    return {name: np.stack([e[name] for e in examples]) for name in examples[0]}
