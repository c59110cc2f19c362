"""Splits of a user's own data: given by folders, or drawn at random."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.builders import sources
from segjax.data.builders.sources import Tree
from segjax.errors import UserError

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""Maps lower-case folder names to splits."""


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """A user's files, and how to hold out some of them.

    Attributes:
        tree: The files.
        validation: Fraction held out for validation, in [0, 1).
        test: Fraction held out for testing.
        seed: Chooses which files are held out.
    """

    tree: Tree = dataclasses.field(repr=False)
    validation: float
    test: float
    seed: int

    def key(self) -> str:
        """Digests the files and all options, those of subclasses included."""
        parts = [sources.digest(self.tree), repr(self)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]

    def complete(
        self, splits: Mapping[str, Sequence[Any]], *, test: float
    ) -> dict[str, Sequence[Any]]:
        """Draws validation and test items from train if there is no validation split.

        Args:
            splits: Items by split; returned unchanged if they include validation.
            test: Fraction to hold out for testing.
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
    """Holds out random items for validation and test; each part keeps its order.

    Args:
        items: All items.
        validation: Fraction in [0, 1). At least one of three items, unless it is 0.
        test: Likewise.
        seed: Chooses which items are held out.

    Returns:
        The non-empty splits, by name.
    """
    order = np.random.default_rng(seed).permutation(len(items))
    sizes = [
        max(1, round(len(items) * fraction)) if fraction > 0 and len(items) >= 3 else 0
        for fraction in (validation, test)
    ]
    parts = np.split(order, np.cumsum(sizes))
    splits = zip(("validation", "test", "train"), parts, strict=True)
    return {k: [items[i] for i in sorted(v)] for k, v in splits if len(v)}


def check_fractions(validation: float, test: float) -> None:
    """Raises a ValueError unless the fractions leave items for training."""
    if not 0 <= validation < 1 or not 0 <= test < 1 or validation + test >= 1:
        raise UserError(
            f"validation and test must be at least 0 with a sum below 1, got "
            f"{validation} and {test}."
        )


def split_folders(tree: Tree) -> dict[str, str]:
    """Maps each split to its folder; empty if there are no split folders.

    Raises:
        ValueError: If two folders are the same split.
    """
    found: dict[str, str] = {}
    for name in tree.folders(""):
        split = SPLITS.get(name.lower())
        if split and tree.folders(name):
            if split in found:
                raise UserError(
                    f"{tree.shown(name)} and {found[split]} are both the split "
                    f"{split}: needed one of them; rename or merge."
                )
            found[split] = name
    return found
