"""Bucketing of image sizes, to limit the number of compiled programs."""

from collections.abc import Sequence

import numpy as np

from segjax.errors import UserError
from segjax.ops.pad import round_up

Size = tuple[int, int]

_MAX_SIZES = 192
"""Number of sizes up to which all pairs are compared; more are rounded first."""


def bucket_sizes(
    sizes: Sequence[Size], *, multiple: int = 32, limit: int = 8
) -> list[Size]:
    """Assigns a padded size to each image, with at most `limit` distinct sizes.

    Sides are rounded up to a multiple. While there are too many sizes, the two whose
    union adds the fewest pixels over all images are merged into one that fits both.
    Hundreds of sizes are first rounded up more coarsely.

    Args:
        sizes: (height, width) of each image, at least 1.
        multiple: Divides every padded side.
        limit: Largest number of distinct sizes, at least 1.

    Returns:
        (height, width) for each image, in the given order.
    """
    if limit < 1 or multiple < 1:
        raise UserError(
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
    """Distinct padded sizes, the index of each image's size, and images per size."""
    padded = [(round_up(h, multiple), round_up(w, multiple)) for h, w in sizes]
    distinct, owner, num_images = np.unique(
        np.asarray(padded, np.int64).reshape(-1, 2),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    return distinct, owner.reshape(-1), num_images


def _cheapest(sizes: np.ndarray, num_images: np.ndarray) -> tuple[int, int]:
    """Indices a < b of the two sizes whose union adds the fewest pixels."""
    areas = sizes.prod(1) * num_images
    union = np.maximum(sizes[:, None], sizes[None]).prod(2)
    added = (
        union * (num_images[:, None] + num_images[None]) - areas[:, None] - areas[None]
    )
    added[np.tril_indices(len(sizes))] = np.iinfo(np.int64).max
    a, b = np.unravel_index(np.argmin(added), added.shape)
    return int(a), int(b)
