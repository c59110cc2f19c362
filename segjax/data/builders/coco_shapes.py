"""Validation of COCO's polygons and run lengths, before pycocotools decodes them.

pycocotools does not validate its input: run lengths with a wrong sum give uninitialized
memory, and polygons are walked pixel by pixel, however far outside of the image.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.builders import coco_json
from segjax.errors import UserError
from segjax.files import limits

_MAX_CHARACTERS = 12
"""Of one compressed run length; 60 bits."""


def check_polygons(polygons: list, what: str, size: tuple[int, int]) -> None:
    """Checks polygons.

    Args:
        polygons: From `segmentation`: lists of x and y of consecutive points.
        what: The annotation, for messages.
        size: (height, width) of the image.

    Raises:
        ValueError: If one is not a polygon, lies outside of the image, has a point
            farther outside than the image's size, or an outline above
            `limits.MAX_OUTLINE` pixels.
    """
    height, width = size
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(map(coco_json.is_number, polygon)):
            raise UserError(
                f"{what} has a polygon that is not a list of numbers: needed x and y "
                f"of at least three points; correct or remove it."
            )
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserError(
                f"{what} has a polygon of {len(polygon)} numbers: needed x and y of at "
                f"least three points; correct or remove it."
            )
        points = np.array(polygon, np.float64).reshape(-1, 2)
        far = (points < [-width, -height]) | (points > [2 * width, 2 * height])
        if far.any():
            x, y = points[far.any(-1)][0]
            raise UserError(
                f"{what} has a polygon with the point ({x:g}, {y:g}): needed points in "
                f"its image of {width}x{height} pixels; correct it."
            )
        low, high = points.min(axis=0), points.max(axis=0)
        if (high <= 0).any() or (low >= [width, height]).any():
            raise UserError(
                f"{what} has a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, "
                f"{high[1]:g}), outside of its image of {width}x{height} pixels: "
                f"needed one inside; correct or remove it."
            )
        edges = np.roll(points, -1, axis=0) - points
        length = np.hypot(*edges.T).sum()
        if length > limits.MAX_OUTLINE:
            raise UserError(
                f"{what} has an outline of {length:.4g} pixels: needed at most "
                f"{limits.MAX_OUTLINE:,}; simplify it, or use run lengths."
            )


def check_run_lengths(
    shape: Mapping[str, Any], what: str, size: tuple[int, int]
) -> None:
    """Checks run lengths, compressed or not.

    Args:
        shape: From `segmentation`: `{"size": [H, W], "counts": ...}`.
        what: The annotation, for messages.
        size: (height, width) of the image.

    Raises:
        ValueError: If their size is not that of the image, or their sum is not its
            number of pixels.
    """
    counts = shape.get("counts")
    if shape.get("size") != list(size):
        raise UserError(
            f"{what} has run lengths of size {str(shape.get('size'))[:80]}: needed "
            f"{list(size)}, [height, width] of its image; export it again."
        )
    if isinstance(counts, str):
        lengths = _uncompressed(counts)
    else:
        is_list = isinstance(counts, list) and all(map(coco_json.is_count, counts))
        lengths = counts if is_list else None
    if lengths is None or any(n < 0 for n in lengths):
        raise UserError(
            f"{what} has invalid run lengths: needed a list of integers from 0 up, or "
            f"COCO's compressed string; export it again."
        )
    total, pixels = sum(lengths), size[0] * size[1]
    if total != pixels:
        raise UserError(
            f"{what} has run lengths that add up to {total}: needed {pixels}, the "
            f"number of pixels of its {size[1]}x{size[0]} image; export it again."
        )


def _uncompressed(text: str) -> list[int] | None:
    """Decodes COCO's compressed run lengths; None if they are malformed.

    Each character, minus "0", has six bits: five of the number, lowest first, and a
    continuation bit. From the fourth number on, each is stored as the difference from
    the number two before it.
    """
    if not text.isascii():
        return None
    values = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if not values.size or values.min() < 0 or values.max() > 63 or values[-1] & 32:
        return None
    ends = np.flatnonzero(values & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts + 1
    if widths.max() > _MAX_CHARACTERS:
        return None
    place = np.arange(values.size) - np.repeat(starts, widths)
    numbers = np.add.reduceat((values & 31) << (5 * place), starts)
    numbers -= np.where(values[ends] & 16, np.int64(1) << (5 * widths), 0)
    # Python integers, since sums of differences may exceed 64 bits.
    lengths = numbers.tolist()
    for i in range(3, len(lengths)):
        lengths[i] += lengths[i - 2]
    return lengths
