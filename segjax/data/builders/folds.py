"""Groups of images, and folds of similar content."""

import re
from collections.abc import Sequence

import numpy as np

from segjax.errors import UserError


def groups(names: Sequence[str], pattern: str | None) -> list[str]:
    """Returns the group of each name.

    Args:
        names: Names of images, with folders, without suffix.
        pattern: A regular expression that is searched in each name. The group is what
            its first parentheses matched, or else the whole match. None for groups of
            one image.

    Raises:
        ValueError: If the pattern is malformed, or does not occur in a name.
    """
    if pattern is None:
        return list(names)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"group={pattern!r} is not a regular expression ({error}): needed one, "
            f"such as ^[^_]+ for what is before the first _."
        ) from error
    found = []
    for name in names:
        match = compiled.search(name)
        if not match:
            raise UserError(
                f"group={pattern!r} does not occur in {name}: needed a part of every "
                f"name, such as that of a patient; change the pattern."
            )
        found.append((match[1] if compiled.groups else match[0]) or "")
    return found


def assign(
    labels: Sequence[str], content: np.ndarray, *, folds: int, seed: int
) -> list[int]:
    """Divides images into folds of similar content; a group stays in one fold.

    The largest groups are placed first, each into the fold that holds the least of what
    the group contains.

    Args:
        labels: The group of each image.
        content: [N, C] pixels of each class in each image; 0 columns for none.
        folds: K, at least 2.
        seed: Orders groups of the same size.

    Returns:
        The fold of each image, 0 to K - 1. No fold is empty.

    Raises:
        ValueError: If there are fewer groups than folds.
    """
    names, group_of = np.unique(np.array(labels), return_inverse=True)
    if not 2 <= folds <= len(names):
        raise UserError(
            f"folds must be 2 to {len(names)}, the number of images or groups, got "
            f"{folds}."
        )
    columns = np.concatenate([np.ones((len(labels), 1)), content], axis=1)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, group_of, columns)
    sums /= np.maximum(sums.sum(axis=0), 1)  # Rare classes count like common ones.
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-sums[shuffled].max(axis=1), kind="stable")]
    held, chosen = np.zeros((folds, sums.shape[1])), np.zeros(len(names), int)
    for group in order:
        overlap = held @ sums[group]
        fold = int(np.lexsort((held[:, 0], overlap))[0])
        chosen[group] = fold
        held[fold] += sums[group]
    return chosen[group_of].tolist()
