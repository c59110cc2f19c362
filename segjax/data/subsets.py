"""A part of a data set's training examples, and all its examples together."""

import bisect
import dataclasses
import hashlib
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from segjax.data.dataset import Dataset, example_name, image_size
from segjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chosen(Sequence[dict[str, Any]]):
    """Some of a sequence's examples.

    Attributes:
        examples: Any (Any: beartype would read one to check its type).
        numbers: Which of them, in order.
    """

    examples: Any
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """Returns an example."""
        return self.examples[self.numbers[index]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.examples[number] for number in self.numbers)

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Returns (height, width) of an example."""
        return image_size(self.examples, self.numbers[index])

    def name(self, index: SupportsIndex) -> str:
        """Returns the name of an example."""
        return example_name(self.examples, self.numbers[index])


@dataclasses.dataclass(frozen=True)
class Joined(Sequence[dict[str, Any]]):
    """The examples of several sequences, one after the other.

    Attributes:
        parts: The sequences.
    """

    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:  # type: ignore[override]
        """Returns an example."""
        part, number = self._place(index)
        return part[number]

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Returns (height, width) of an example."""
        return image_size(*self._place(index))

    def name(self, index: SupportsIndex) -> str:
        """Returns the name of an example."""
        return example_name(*self._place(index))

    def _place(self, index: SupportsIndex) -> tuple[Any, int]:
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"example {number} of {len(self)}")
        starts = [0, *itertools.accumulate(map(len, self.parts))]
        which = bisect.bisect_right(starts, number) - 1
        return self.parts[which], number - starts[which]


def join_splits(dataset: Dataset, name: str = "all") -> Dataset:
    """Adds a split of all examples, in the order of the splits that have them.

    For the evaluation on data with which a model was not trained. The fingerprint does
    not change.

    Args:
        dataset: Any data set.
        name: Of the new split. A data set that has such a split is returned as it is.
    """
    splits = dict(dataset.splits)
    if name in splits:
        return dataset
    joined = Joined(tuple(splits.values()))
    return dataclasses.replace(dataset, splits={**splits, name: joined})


def subset(
    dataset: Dataset, share: float, *, split: str = "train", seed: int = 0
) -> Dataset:
    """Keeps a random part of a split, for learning curves and few labels.

        few = data.subset(data.camvid(), 0.05)

    Args:
        dataset: Any data set.
        share: Share of the examples to keep, of (0, 1]; at least one is kept. With the
            same seed, a larger share has all examples of a smaller one.
        split: The split to reduce; others stay as they are.
        seed: Seeds the choice.

    Returns:
        The data set with the smaller split, whose examples keep their order. Its
        fingerprint changes with the choice; that of share 1 is the data set's own.

    Raises:
        ValueError: For another share, a split that does not exist, or an empty one.
    """
    if not 0 < share <= 1:
        raise UserError(f"subset needs a share above 0, at most 1; got {share}.")
    if not dataset.splits.get(split):
        raise UserError(
            f"subset needs a split with examples, got {split!r}; {dataset.name} has "
            f"{', '.join(dataset.splits)}."
        )
    if share == 1:
        return dataset
    order = np.random.default_rng(seed).permutation(len(dataset.splits[split]))
    count = max(1, round(share * len(order)))
    numbers = tuple(sorted(order[:count].tolist()))
    text = f"{dataset.fingerprint} {split} {numbers}"
    return dataclasses.replace(
        dataset,
        splits={**dataset.splits, split: Chosen(dataset.splits[split], numbers)},
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )
