"""Images that are in a data set twice, also after another compression."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Shaped

_SIDE = 32
_ALIKE = 0.999
"""Correlation of thumbnails from which two images are near-duplicates."""
_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that are equal or nearly so.

    Attributes:
        first: Position among all images.
        second: Likewise, larger.
        exact: Whether all pixels are equal.
        correlation: Of the two thumbnails.
    """

    first: int
    second: int
    exact: bool
    correlation: float


def digest(image: Shaped[np.ndarray, "h w k"]) -> bytes:
    """Digests all pixels, the shape and the dtype."""
    sha = hashlib.sha256(repr((image.shape, image.dtype.str)).encode())
    sha.update(np.ascontiguousarray(image).tobytes())
    return sha.digest()


def thumbnail(image: Shaped[np.ndarray, "h w k"]) -> Float32[np.ndarray, " n"]:
    """Reduces an image to what survives another compression, size or contrast.

    The means over 32x32 cells of the mean over channels, less their mean, with a norm
    of 1. All 0 for an image without contrast.
    """
    gray = image.astype(np.float32).mean(-1)
    cells = _means(_means(gray, 0), 1).ravel()
    cells -= cells.mean()
    norm = float(np.linalg.norm(cells))
    flat = norm <= 1e-6 * (1 + abs(float(gray.mean()))) * _SIDE
    return np.zeros_like(cells) if flat else cells / np.float32(norm)


def pairs(
    digests: Sequence[bytes], thumbnails: Sequence[Float32[np.ndarray, " n"]]
) -> list[Pair]:
    """Finds all pairs of equal or nearly equal images.

    Nearly equal: the thumbnails correlate by 0.999 or more. Images without contrast are
    compared by their pixels only.

    Args:
        digests: Of the images, from `digest`.
        thumbnails: Of the images, from `thumbnail`.

    Returns:
        By falling correlation, equal images first.
    """
    table = np.stack(thumbnails) if len(thumbnails) else np.zeros((0, 1), np.float32)
    found = []
    for start in range(0, len(table), _ROWS):
        alike = table[start : start + _ROWS] @ table.T
        for i, j in np.argwhere(alike >= _ALIKE).tolist():
            if start + i < j:
                same = digests[start + i] == digests[j]
                value = min(1.0, float(alike[i, j]))
                found.append(Pair(start + i, j, same, value))
    flat = [i for i, row in enumerate(table) if not row.any()]
    by_digest: dict[bytes, int] = {}
    for i in flat:
        first = by_digest.setdefault(digests[i], i)
        if first != i:
            found.append(Pair(first, i, exact=True, correlation=math.nan))
    return sorted(found, key=lambda p: (not p.exact, -p.correlation, p.first, p.second))


def _means(values: np.ndarray, axis: int) -> np.ndarray:
    """Means over 32 cells of equal width along an axis; pixels may be divided."""
    length = values.shape[axis]
    total = np.cumsum(np.insert(values, 0, 0, axis=axis), axis=axis, dtype=np.float64)
    edges = np.linspace(0, length, _SIDE + 1)
    low = np.minimum(edges.astype(int), length - 1)
    part = np.expand_dims(edges - low, 1 - axis)
    at_edges = np.take(total, low, axis) * (1 - part) + part * np.take(
        total, low + 1, axis
    )
    return (np.diff(at_edges, axis=axis) * _SIDE / length).astype(np.float32)
