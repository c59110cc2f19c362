"""Filling of polygons, rectangles and circles.

The rule: a pixel is inside if its center is, by the even-odd rule; x and y are in
pixels, and the first pixel is from 0 to 1. This is scikit-image's `draw.polygon` of the
points less half a pixel; centers on an edge to the right or below are outside.
"""

from collections.abc import Sequence

import numpy as np

from segjax.errors import UserError
from segjax.files import limits


def checked(points: Sequence, what: str, size: tuple[int, int]) -> np.ndarray:
    """Converts points to an array.

    Args:
        points: x and y of at least three points.
        what: The shape, for messages.
        size: (height, width) of the image.

    Returns:
        float64 [N, 2].

    Raises:
        ValueError: If there are fewer, one is not finite, or all lie outside.
    """
    height, width = size
    try:
        found = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.full((0, 2), np.nan)
    if found.ndim != 2 or found.shape[1:] != (2,) or len(found) < 3:
        raise UserError(
            f"{what} has {len(points)} points: needed x and y of at least three, all "
            f"numbers; correct or remove it."
        )
    if not (np.abs(found) < 2**31).all():
        raise UserError(
            f"{what} has points that are not in its image of {width}x{height} pixels: "
            f"needed x and y in pixels; correct it."
        )
    low, high = found.min(axis=0), found.max(axis=0)
    if (high <= 0).any() or (low >= [width, height]).any():
        raise UserError(
            f"{what} lies from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}), "
            f"outside of its image of {width}x{height} pixels: needed a part inside; "
            f"correct or remove it."
        )
    return found


def fill(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fills a polygon.

    Args:
        points: [N, 2], x and y.
        size: (height, width) of the mask.

    Returns:
        bool [H, W].

    Raises:
        ValueError: If the outline is longer than `limits.MAX_OUTLINE`.
    """
    height, width = size
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # Rows whose center is at or above the lower end, and below the upper one.
    first, last = (
        np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64)
        for y in (np.minimum(y0, y1), np.maximum(y0, y1))
    )
    counts = last - first
    if counts.sum() > limits.MAX_OUTLINE:
        raise UserError(
            f"a polygon of {len(points):,} points crosses {counts.sum():,} rows: "
            f"needed at most {limits.MAX_OUTLINE:,}; simplify it."
        )
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    row += first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    # To the right of each crossing, inside becomes outside and the reverse.
    flips = np.zeros((height, width + 1), np.uint8)
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    np.bitwise_xor.at(flips, (row, column), 1)
    return np.bitwise_xor.accumulate(flips, axis=1)[:, :width].astype(bool)


def fill_ellipse(
    center: tuple[float, float], radii: tuple[float, float], size: tuple[int, int]
) -> np.ndarray:
    """Fills an ellipse with axes along x and y; bool [H, W].

    Args:
        center: x and y.
        radii: Along x and y, positive.
        size: (height, width) of the mask.
    """
    y, x = np.ogrid[: size[0], : size[1]]
    along_x = (x + 0.5 - center[0]) / radii[0]
    along_y = (y + 0.5 - center[1]) / radii[1]
    return along_x**2 + along_y**2 < 1
