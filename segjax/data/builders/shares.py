"""Splits of a user's own data: named by folders, or drawn by chance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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


def share_out(
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
    counts = [
        max(1, round(len(items) * share)) if share > 0 and len(items) >= 3 else 0
        for share in (validation, test)
    ]
    parts = np.split(order, np.cumsum(counts))
    splits = zip(("validation", "test", "train"), parts, strict=True)
    return {k: [items[i] for i in sorted(v)] for k, v in splits if len(v)}


def check_shares(validation: float, test: float) -> None:
    """Raises a ValueError unless the shares leave some for training."""
    if not 0 <= validation < 1 or not 0 <= test < 1 or validation + test >= 1:
        raise ValueError(
            f"validation and test must be shares that leave some for training, got "
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
