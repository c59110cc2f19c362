"""Splits of a user's own data: given by folders, or drawn at random."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.builders import folds, sources
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """A user's files, and how to hold out some of them.

    Attributes:
        tree: The files.
        validation: Fraction held out for validation, in [0, 1).
        test: Fraction held out for testing.
        seed: Chooses which files are held out.
        group: Images whose names have the same match of this regular expression are
            never in different splits.
        folds: Number of folds, instead of fractions.
    """

    tree: Tree = dataclasses.field(repr=False)
    validation: float
    test: float
    seed: int
    group: str | None = None
    folds: int | None = None

    def key(self) -> str:
        """Digests the files and all options, those of subclasses included."""
        parts = [self.digest(), repr(self)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]

    def digest(self) -> str:
        """Digests the files."""
        return sources.digest(self.tree)

    def in_folds(
        self, splits: Mapping[str, Sequence[Any]], content: np.ndarray
    ) -> tuple[dict[str, Sequence[Any]], list[int]]:
        """Orders the items of train by fold.

        Args:
            splits: Items with a `name` by split.
            content: [N, C] pixels of each class in each item of train.

        Returns:
            The splits, and the number of items in each fold.

        Raises:
            ValueError: If there is a validation split, or too few items or groups.
        """
        assert self.folds is not None
        if "validation" in splits:
            raise UserError(
                f"{self.tree.shown('')} has a validation folder: needed none to make "
                f"{self.folds} folds; move its images into train/, or omit folds."
            )
        items = splits["train"]
        groups = folds.groups([item.name for item in items], self.group)
        fold_of = folds.assign(groups, content, folds=self.folds, seed=self.seed)
        order = np.argsort(fold_of, kind="stable").tolist()
        sizes = np.bincount(fold_of, minlength=self.folds).tolist()
        return dict(splits) | {"train": [items[i] for i in order]}, sizes

    def complete(
        self, splits: Mapping[str, Sequence[Any]], *, test: float
    ) -> dict[str, Sequence[Any]]:
        """Draws validation and test items from train if there is no validation split.

        Args:
            splits: Items with a `name` by split; returned unchanged if they include
                validation.
            test: Fraction to hold out for testing.
        """
        if "validation" in splits:
            return dict(splits)
        labels = None
        if self.group is not None:
            labels = folds.groups([item.name for item in splits["train"]], self.group)
        drawn = assign(
            splits["train"],
            validation=self.validation,
            test=test,
            seed=self.seed,
            groups=labels,
        )
        return dict(splits) | dict(drawn)


def assign(
    items: Sequence[Any],
    *,
    validation: float,
    test: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Mapping[str, list[Any]]:
    """Holds out random items for validation and test; each part keeps its order.

    Args:
        items: All items.
        validation: Fraction in [0, 1). At least one of three items, unless it is 0.
        test: Likewise.
        seed: Chooses which items are held out.
        groups: The group of each item; a group is in one split. The fractions are then
            those of the groups.

    Returns:
        The non-empty splits, by name.
    """
    units, unit_of = range(len(items)), np.arange(len(items))
    if groups is not None:
        units, unit_of = np.unique(np.array(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(units))
    sizes = [
        max(1, round(len(units) * fraction)) if fraction > 0 and len(units) >= 3 else 0
        for fraction in (validation, test)
    ]
    drawn = np.split(order, np.cumsum(sizes))
    parts = [np.flatnonzero(np.isin(unit_of, part)).tolist() for part in drawn]
    splits = zip(("validation", "test", "train"), parts, strict=True)
    return {k: [items[i] for i in v] for k, v in splits if len(v)}


def check_fractions(validation: float, test: float) -> None:
    """Raises a ValueError unless the fractions leave items for training."""
    if not 0 <= validation < 1 or not 0 <= test < 1 or validation + test >= 1:
        raise UserError(
            f"validation and test must be at least 0 with a sum below 1, got "
            f"{validation} and {test}."
        )


def check_fold(folds: int | None, fold: int) -> None:
    """Raises a ValueError unless the fold is one of the folds."""
    if folds is None and fold:
        raise UserError(f"fold={fold} needs folds, such as folds=5; pass both.")
    if folds is not None and (folds < 2 or not 0 <= fold < folds):
        raise UserError(
            f"folds must be at least 2, and fold 0 to folds - 1, got folds={folds} and "
            f"fold={fold}."
        )
