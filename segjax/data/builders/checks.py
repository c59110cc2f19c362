"""Consistency checks across the examples of a data set during preparation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax import ops
from segjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ExampleFacts:
    """The properties of an example that are checked.

    Attributes:
        dtype: Of the image.
        channels: Of the image.
        max_id: Largest class id in the label, except the ignored one; -1 for none.
    """

    dtype: np.dtype
    channels: int
    max_id: int

    @classmethod
    def of(cls, example: Mapping[str, Any]) -> "ExampleFacts":
        """Returns the facts of an example with image and label."""
        image, label = example["image"], example["label"]
        ids = label[label != ops.ignore_index(label.dtype)]
        max_id = int(ids.max()) if ids.size else -1
        return cls(image.dtype, image.shape[-1], max_id)


class ConsistencyCheck:
    """Checks that all images have the same dtype and channels, and labels known ids."""

    def __init__(self):
        self._first: tuple[ExampleFacts, str] | None = None
        self._max_id = (-1, "")

    def add(self, facts: ExampleFacts, where: str) -> None:
        """Adds an example; ValueError if its image differs from the first one's."""
        first, first_where = self._first = self._first or (facts, where)
        self._max_id = max(self._max_id, (facts.max_id, where))
        if (facts.dtype, facts.channels) != (first.dtype, first.channels):
            raise UserError(
                f"{where} holds {facts.dtype} of {facts.channels} channels, "
                f"{first_where} {first.dtype} of {first.channels}: needed the same "
                f"dtype and number of channels in a data set; convert it, or remove it."
            )

    def check_labels(self, num_classes: int) -> None:
        """Raises a ValueError if a label has an id that is not a class."""
        max_id, where = self._max_id
        if max_id >= num_classes:
            raise UserError(
                f"the label of {where} holds id {max_id}: needed 0 to "
                f"{num_classes - 1}, for {num_classes} classes; correct it, or name "
                f"all classes."
            )
