"""Instances from the maps of a semantic network, by a seeded watershed."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from segjax import optional
from segjax.errors import UserError
from segjax.inference.objects import components


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watershed:
    """Settings of `instances`.

    Attributes:
        seed_threshold: Interior values above it are seeds.
        foreground_threshold: Foreground values above it belong to instances.
        min_seed_area: Pixels of the smallest seed; smaller ones are not seeds.
        min_area: Pixels of the smallest instance; smaller ones are removed.
    """

    seed_threshold: float = 0.5
    foreground_threshold: float = 0.5
    min_seed_area: int = 0
    min_area: int = 0


def instances(
    interior: np.ndarray, foreground: np.ndarray, settings: Watershed | None = None
) -> np.ndarray:
    """Separates touching objects: seeds grow downhill from the interior map.

    Seeds are the connected components of high interior values. A watershed of the
    interior map assigns every foreground pixel to a seed that it is connected to.
    Foreground without a seed is removed.

        p = probabilities  # Of background, inside and border: a network of 3 classes.
        instances(p[..., 1], p[..., 1] + p[..., 2])
        instances(distance, p[..., 1])  # Of a network that predicts the distance to
                                        # the boundary.

    Args:
        interior: [H, W], higher inside of objects than at their borders, such as the
            probability of the class inside, or the distance to the boundary.
        foreground: [H, W], probability that a pixel belongs to any object.
        settings: See `Watershed`; the thresholds are in the units of the two maps.

    Returns:
        int32 [H, W] of ids from 1 without gaps, 0 for background.

    Raises:
        ValueError: If the maps differ in shape, or scikit-image is not installed.
    """
    settings = Watershed() if settings is None else settings
    if interior.ndim != 2 or interior.shape != foreground.shape:
        raise UserError(
            f"instances needs two maps [H, W] of one shape, got "
            f"{list(interior.shape)} and {list(foreground.shape)}."
        )
    segmentation = optional.require(
        "skimage.segmentation",
        extra="instances",
        purpose="inference.instances",
        package="scikit-image",
    )
    mask = foreground > settings.foreground_threshold
    seeds, _ = components((interior > settings.seed_threshold) & mask)
    seeds = _without_small(seeds, settings.min_seed_area)
    # float32, since scikit-image has no 16-bit floats.
    ids = segmentation.watershed(-interior.astype(np.float32), seeds, mask=mask)
    return _without_small(ids, settings.min_area)


def best_settings(
    maps: Sequence[tuple[np.ndarray, np.ndarray]],
    score: Callable[[list[np.ndarray]], float],
    grid: Sequence[Watershed],
) -> tuple[Watershed, float]:
    """Chooses settings on validation images.

    Args:
        maps: `(interior, foreground)` of each image.
        score: `one id map [H, W] per image -> score`, higher is better, such as
            `dsb2018_score@0.50` of `metrics.Matching` against the true instances.
        grid: The settings to compare.

    Returns:
        (the best settings, their score); the first of equally good ones.
    """
    if not grid or not maps:
        raise UserError(
            f"best_settings needs images and settings, got {len(maps)} and {len(grid)}."
        )
    scores = [score([instances(*pair, one) for pair in maps]) for one in grid]
    best = int(np.nanargmax(scores))
    return grid[best], float(scores[best])


def _without_small(ids: np.ndarray, min_area: int) -> np.ndarray:
    """Removes ids of fewer pixels, and numbers the others from 1."""
    kept = np.bincount(ids.ravel()) >= max(1, min_area)
    kept[0] = False
    return (np.cumsum(kept) * kept).astype(np.int32)[ids]
