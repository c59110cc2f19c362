"""Checks across the examples of a data set that is being prepared."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax import ops


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is checked of an example.

    Attributes:
        dtype: Of the image.
        channels: Of the image.
        greatest: Class id in the label, the ignored one left out; -1 for none.
    """

    dtype: np.dtype
    channels: int
    greatest: int

    @classmethod
    def of(cls, example: Mapping[str, Any]) -> "Seen":
        """That of an example with image and label."""
        image, label = example["image"], example["label"]
        ids = label[label != ops.ignore_index(label.dtype)]
        greatest = int(ids.max()) if ids.size else -1
        return cls(image.dtype, image.shape[-1], greatest)


class Checked:
    """Checks across the examples of a data set: one form, and known classes."""

    def __init__(self):
        self._first: tuple[Seen, str] | None = None
        self._greatest = (-1, "")

    def add(self, seen: Seen, where: str) -> None:
        """Takes an example; ValueError if its image is unlike the first one's."""
        first, place = self._first = self._first or (seen, where)
        self._greatest = max(self._greatest, (seen.greatest, where))
        if (seen.dtype, seen.channels) != (first.dtype, first.channels):
            raise ValueError(
                f"{where} holds {seen.dtype} of {seen.channels} channels, {place} "
                f"{first.dtype} of {first.channels}: needed one kind in a data set; "
                f"convert it, or remove it."
            )

    def check_labels(self, num_classes: int) -> None:
        """Raises a ValueError if an example had an id beyond the classes."""
        greatest, where = self._greatest
        if greatest >= num_classes:
            raise ValueError(
                f"the label of {where} holds id {greatest}: needed 0 to "
                f"{num_classes - 1}, for {num_classes} classes; correct it, or name "
                f"all classes."
            )
