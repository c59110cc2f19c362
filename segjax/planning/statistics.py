"""What a data set looks like: sizes of its images, classes and objects."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import ops
from segjax.data.dataset import image_size
from segjax.data.objects import objects_of
from segjax.errors import UserError

Size = tuple[int, int]

_MOST_PIXELS = 200_000_000
"""Pixels of the images that are read, which takes about half a minute."""
_COLORED = 5.0
"""Mean difference between the largest and smallest channel, in levels of 0 to 255."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Numbers of the training split that settings are derived from.

    Attributes:
        images: Number of images by split.
        counted: Number of training images that were read.
        size: Median (height, width), in pixels.
        largest: (height, width) of the largest image.
        classes: Class names.
        pixel_shares: Fraction of the labeled pixels of each class, in [0, 1].
        image_shares: Fraction of the images that hold each class, in [0, 1].
        extents: Typical width of the regions of each class, in pixels: four times the
            area over the perimeter, which is the diameter of a disk, the side of a
            square and twice the width of a strip. None for a class without pixels or
            without a border.
        object_side: Median of the geometric mean of the sides of an object's box, in
            pixels; None without objects.
        most_objects: The most objects of an image.
        colored: Whether at least half of the images read are 8-bit RGB with colors, as
            photographs are, and not gray ones in three channels.
    """

    images: Mapping[str, int]
    counted: int
    size: Size
    largest: Size
    classes: tuple[str, ...]
    pixel_shares: tuple[float, ...]
    image_shares: tuple[float, ...]
    extents: tuple[float | None, ...]
    object_side: float | None = None
    most_objects: int = 0
    colored: bool = False


def statistics(dataset: Any, *, split: str = "train", most: int = 64) -> Statistics:
    """Reads images of a split, evenly spaced, and counts.

    Args:
        dataset: A `data.Dataset`.
        split: The split to read.
        most: The largest number of images to read.

    Raises:
        ValueError: If the split has no image, or no labeled pixel.
    """
    examples, num_classes = dataset.splits[split], len(dataset.classes)
    if not len(examples):
        raise UserError(f"{split!r} has no image: needed at least one.")
    sizes = _sizes(examples)
    most = min(most, max(4, _MOST_PIXELS // math.prod(_median(sizes))))
    step = max(1, math.ceil(len(examples) / most))
    chosen = range(0, len(examples), step)
    counts = [_counts(examples[number], num_classes) for number in chosen]
    pixels = np.array([count.pixels for count in counts])
    borders = np.sum([count.borders for count in counts], axis=0)
    total = pixels.sum(axis=0)
    if not total.sum():
        raise UserError(
            f"No pixel of the {len(counts)} masks read has a class: all are ignored. "
            f"Check which value marks ignored pixels."
        )
    sides = [side for count in counts for side in count.object_sides]

    return Statistics(
        images={name: len(x) for name, x in dataset.splits.items()},
        counted=len(counts),
        size=_median(sizes),
        largest=max(sizes, key=math.prod),
        classes=tuple(dataset.classes),
        pixel_shares=tuple((total / total.sum()).tolist()),
        image_shares=tuple((pixels > 0).mean(axis=0).tolist()),
        extents=tuple(
            _extent(*x) for x in zip(total.tolist(), borders.tolist(), strict=True)
        ),
        object_side=float(np.median(sides)) if sides else None,
        most_objects=max(len(count.object_sides) for count in counts),
        colored=2 * sum(count.colored for count in counts) >= len(counts),
    )


def median_image(dataset: Any, *, split: str = "train") -> Size:
    """Returns the median height and the median width of a split's images."""
    return _median(_sizes(dataset.splits[split]))


def _sizes(examples: Sequence[Any]) -> list[Size]:
    """Returns the (height, width) of all examples, from headers if possible."""
    return [image_size(examples, number) for number in range(len(examples))]


def _median(sizes: Sequence[Size]) -> Size:
    height, width = np.median(np.array(sizes), axis=0).astype(int).tolist()
    return height, width


@dataclasses.dataclass(frozen=True)
class _Counts:
    """Of one image: pixels and border edges by class, sides of objects, any colors."""

    pixels: np.ndarray
    borders: np.ndarray
    object_sides: list[float]
    colored: bool


def _counts(example: Mapping[str, Any], num_classes: int) -> _Counts:
    label = np.asarray(example["label"])
    ids = np.where(label == ops.ignore_index(label.dtype), num_classes, label)
    return _Counts(
        _histogram(ids, num_classes),
        _borders(ids, num_classes),
        _object_sides(example),
        _is_colored(np.asarray(example["image"])),
    )


def _is_colored(image: np.ndarray) -> bool:
    """Returns whether the channels of an 8-bit RGB image differ by 5 levels or more.

    JPEG's chroma leaves differences of a level or two in gray images.
    """
    if image.dtype != np.uint8 or image.shape[-1] != 3:
        return False
    some = image[::4, ::4]
    return bool((some.max(axis=-1) - some.min(axis=-1)).mean() >= _COLORED)


def _histogram(ids: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(ids.ravel(), minlength=num_classes + 1)[:num_classes]


def _borders(ids: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pixel edges between a class and another one.

    Edges to ignored pixels and to the border of the image do not count: what an object
    is cut off by is no outline.
    """
    found = np.zeros(num_classes, np.int64)
    for a, b in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
        differ = (a != b) & (a < num_classes) & (b < num_classes)
        for side in (a, b):
            found += _histogram(side[differ], num_classes)
    return found


def _extent(pixels: int, border: int) -> float | None:
    """Four times the area over the perimeter.

    A line's length is pi / 4 times the pixel edges along it, averaged over directions
    (Crofton's formula).
    """
    return float(4 * pixels / (math.pi / 4 * border)) if pixels and border else None


def _object_sides(example: Mapping[str, Any]) -> list[float]:
    """Returns the geometric mean of the sides of each object's box, in pixels."""
    if "objects" in example:
        masks = objects_of(example).masks
        sides = [masks.any(axis).sum(1) for axis in (1, 2)]
        return np.sqrt(sides[0] * sides[1]).tolist()
    if "instances" not in example:
        return []
    ids, sides = np.asarray(example["instances"]), []
    rows, columns = np.nonzero(ids)
    numbers, place = np.unique(ids[rows, columns], return_inverse=True)
    for axis in (rows, columns):
        low = np.full(len(numbers), ids.size)
        high = np.zeros(len(numbers), int)
        np.minimum.at(low, place, axis)
        np.maximum.at(high, place, axis)
        sides.append(high - low + 1)
    return np.sqrt(sides[0] * sides[1]).tolist()
