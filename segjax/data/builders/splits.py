"""Splits of a user's own data: named by folders, or drawn by chance."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.builders import sources
from segjax.data.builders.sources import Tree

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""The split that a folder's name, in lower case, stands for."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """A user's files, and how to hold some of them out.

    Attributes:
        tree: The files.
        validation: Share held out for validation, in [0, 1).
        test: Share held out for the test.
        seed: Chooses which.
    """

    tree: Tree = dataclasses.field(repr=False)
    validation: float
    test: float
    seed: int

    def key(self) -> str:
        """Digest of the files and of every option, those of subclasses included."""
        parts = [sources.digest(self.tree), repr(self)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]

    def completed(
        self, splits: Mapping[str, Sequence[Any]], *, test: float
    ) -> dict[str, Sequence[Any]]:
        """The splits, with validation and test items out of train where it has none.

        Args:
            splits: Items by split; returned as they are if validation is there.
            test: Share to hold out for the test.
        """
        if "validation" in splits:
            return dict(splits)
        drawn = assign(
            splits["train"], validation=self.validation, test=test, seed=self.seed
        )
        return dict(splits) | dict(drawn)


def assign(
    items: Sequence[Any], *, validation: float, test: float, seed: int
) -> Mapping[str, list[Any]]:
    """Holds items out for validation and test, and keeps the order of each part.

    Args:
        items: All there are.
        validation: Share in [0, 1). At least one item of three, unless it is 0.
        test: Likewise.
        seed: Chooses which.

    Returns:
        Splits that have an item, by name.
    """
    order = np.random.default_rng(seed).permutation(len(items))
    sizes = [
        max(1, round(len(items) * share)) if share > 0 and len(items) >= 3 else 0
        for share in (validation, test)
    ]
    parts = np.split(order, np.cumsum(sizes))
    splits = zip(("validation", "test", "train"), parts, strict=True)
    return {k: [items[i] for i in sorted(v)] for k, v in splits if len(v)}


def check_fractions(validation: float, test: float) -> None:
    """Raises a ValueError unless the fractions leave some for training."""
    if not 0 <= validation < 1 or not 0 <= test < 1 or validation + test >= 1:
        raise ValueError(
            f"validation and test must be fractions that leave some for training, got "
            f"{validation} and {test}."
        )


def split_folders(tree: Tree) -> dict[str, str]:
    """Split to the folder that holds its folders; empty if there are none.

    Raises:
        ValueError: If two folders stand for the same split.
    """
    found: dict[str, str] = {}
    for name in tree.folders(""):
        split = SPLITS.get(name.lower())
        if split and tree.folders(name):
            if split in found:
                raise ValueError(
                    f"{tree.shown(name)} and {found[split]} both stand for {split}: "
                    f"needed one of them; rename or merge."
                )
            found[split] = name
    return found
