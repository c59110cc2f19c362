"""Few shapes for images of many sizes: each shape is a compiled program."""

from collections.abc import Sequence

import numpy as np

from segjax.ops.pad import round_up

Size = tuple[int, int]

_MAX_SIZES = 192
"""Distinct sizes among which all pairs are compared; more are first rounded up."""


def bucket_sizes(
    sizes: Sequence[Size], *, multiple: int = 32, limit: int = 8
) -> list[Size]:
    """A padded size for each image, of at most `limit` different ones.

    Sides are rounded up to a multiple. If that leaves too many sizes, the two whose
    union adds the fewest pixels over all images become one, which holds both, until
    there are few enough. Hundreds of sizes are first rounded up more coarsely.

    Args:
        sizes: (height, width) of each image, at least 1.
        multiple: Every padded side divides by it.
        limit: At least 1.

    Returns:
        (height, width) for each image, in its order; a pure function of the arguments.
    """
    if limit < 1 or multiple < 1:
        raise ValueError(
            f"bucket_sizes needs limit and multiple of at least 1, got {limit} and "
            f"{multiple}."
        )
    distinct, owner, num_images = _rounded(sizes, multiple)
    coarse = multiple
    while len(distinct) > max(limit, _MAX_SIZES):
        coarse *= 2
        distinct, owner, num_images = _rounded(sizes, coarse)
    while len(distinct) > limit:
        a, b = _cheapest(distinct, num_images)
        distinct[a] = np.maximum(distinct[a], distinct[b])
        num_images[a] += num_images[b]
        distinct, num_images = np.delete(distinct, b, 0), np.delete(num_images, b)
        owner = np.where(owner == b, a, owner)
        owner = np.where(owner > b, owner - 1, owner)
    return [(int(h), int(w)) for h, w in distinct[owner]]


def _rounded(
    sizes: Sequence[Size], multiple: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct padded sizes, which of them each image has, and how many have it."""
    padded = [(round_up(h, multiple), round_up(w, multiple)) for h, w in sizes]
    distinct, owner, num_images = np.unique(
        np.asarray(padded, np.int64).reshape(-1, 2),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    return distinct, owner.reshape(-1), num_images


def _cheapest(sizes: np.ndarray, num_images: np.ndarray) -> tuple[int, int]:
    """The pair a < b whose union adds the fewest pixels."""
    areas = sizes.prod(1) * num_images
    union = np.maximum(sizes[:, None], sizes[None]).prod(2)
    added = (
        union * (num_images[:, None] + num_images[None]) - areas[:, None] - areas[None]
    )
    added[np.tril_indices(len(sizes))] = np.iinfo(np.int64).max
    a, b = np.unravel_index(np.argmin(added), added.shape)
    return int(a), int(b)
