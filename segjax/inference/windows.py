"""Sliding windows: large images in tiles of one shape, with bounded memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from segjax.errors import UserError
from segjax.inference.predictor import reflect
from segjax.inference.transforms import PredictFn
from segjax.typing import Array

Window = Callable[[int], np.ndarray]
"""`side of a tile -> weights [side]` above 0; those of a tile: the outer product."""

_GRID = 32
"""Of the networks: tiles begin at its multiples."""
_SIGMA = 1 / 8
"""Standard deviation of the Gaussian, in sides of a tile; that of nnU-Net."""


@runtime_checkable
class PartialReader(Protocol):
    """An image [H, W, K] in a file that is read in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, K)."""
        ...

    def __getitem__(self, window: Any) -> np.ndarray:
        """Reads rows and columns, `source[y0:y1, x0:x1]`."""
        ...


Source = np.ndarray | PartialReader


def gaussian_window(side: int) -> np.ndarray:
    """Weights [side] that are largest in the center of a tile."""
    center = np.arange(side) - (side - 1) / 2
    return np.exp(-0.5 * (center / (_SIGMA * side)) ** 2).astype(np.float32)


def constant_window(side: int) -> np.ndarray:
    """Equal weights [side]."""
    return np.ones(side, np.float32)


def sliding_window(
    predict: PredictFn,
    *,
    tile: int = 512,
    overlap: float = 0.25,
    window: Window = gaussian_window,
    batch_size: int | None = None,
    reduce: Callable[[np.ndarray], np.ndarray] | None = None,
) -> PredictFn:
    """Predicts images of any size in overlapping tiles of one shape.

    The result at a pixel is the mean of the tiles that hold it, weighted by their
    windows. Images smaller than a tile are padded by reflection.

    Args:
        predict: Called with [batch_size, tile, tile, K] only.
        tile: Side of the tiles, in pixels. Divisible by 32 for most networks.
        overlap: Smallest fraction of a tile that neighbors share, in [0, 1).
        window: Weights of a tile's pixels, such as `constant_window`.
        batch_size: Tiles per call; by default 1 on a CPU and 8 elsewhere.
        reduce: Applied to rows of finished probabilities [rows, W, C], such as
            `labels`, so that only its results are kept: the probabilities of a large
            image can exceed the memory.

    Returns:
        The prediction function, to NumPy arrays. Beside them it holds probabilities of
        `tile` rows.

    Raises:
        ValueError: If an argument is out of its range.
    """
    _check(tile, overlap)

    def tiled(images: Array) -> np.ndarray:
        made = None
        for i, image in enumerate(images):
            parts = bands(
                predict,
                np.asarray(image),
                tile=tile,
                overlap=overlap,
                window=window,
                batch_size=batch_size,
            )
            for first, probs in parts:
                rows = probs if reduce is None else reduce(probs)
                if made is None:
                    shape = (*images.shape[:2], *rows.shape[1:])
                    made = np.zeros(shape, rows.dtype)
                made[i, first : first + len(rows)] = rows
        if made is None:
            raise UserError("sliding_window needs at least one image, got none.")
        return made

    return tiled


def bands(
    predict: PredictFn,
    image: Source,
    *,
    tile: int = 512,
    overlap: float = 0.25,
    window: Window = gaussian_window,
    batch_size: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Predicts one image in tiles, and yields finished rows from top to bottom.

    Memory does not depend on the height of the image, so a file can be predicted that
    does not fit into it.

    Args:
        predict: See `sliding_window`.
        image: [H, W, K] as stored: an array, or anything that is sliced like one.
        tile: See `sliding_window`.
        overlap: See `sliding_window`.
        window: See `sliding_window`.
        batch_size: See `sliding_window`.

    Yields:
        (index of the first row, probabilities float32 [rows, W, C]). The array is not
        used again.
    """
    _check(tile, overlap)
    height, width = image.shape[:2]
    ys, xs = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    weights = np.asarray(window(tile), np.float32)
    down, across = (
        _coverage(starts, weights, length)
        for starts, length in ((ys, height), (xs, width))
    )
    total = None
    for y, following in zip(ys, [*ys[1:], height], strict=True):
        for x, probs in _row_of_tiles(predict, image, y, xs, tile, batch_size):
            if total is None:
                total = np.zeros((tile, width, probs.shape[-1]), np.float32)
            part = probs[:, : width - x] * weights[:, None, None]
            part *= weights[None, : width - x, None]
            total[:, x : x + tile] += part
        assert total is not None
        done = following - y
        scale = down[y:following, None, None] * across[None, :, None]
        yield y, total[:done] / scale
        # The rest of the rows also belongs to the next tiles.
        total[: tile - done] = total[done:]
        total[tile - done :] = 0


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Returns the first pixels of tiles that cover `length` pixels, evenly spaced.

    They are multiples of a power of two, 32 if the tile is one, so that a network that
    pools sees the grid of the whole image. The last tile can end beyond the image.

    Args:
        length: Of the image, in pixels.
        tile: Side of the tiles.
        overlap: Smallest fraction of a tile that neighbors share.
    """
    if length <= tile:
        return [0]
    stride = max(1, int(tile * (1 - overlap)))
    unit = math.gcd(tile, _GRID)
    while unit > stride:
        unit //= 2
    last = -(-(length - tile) // unit)
    count = -(-last // (stride // unit)) + 1
    return (np.linspace(0, last, count).astype(int) * unit).tolist()


def read_tile(image: Source, y: int, x: int, tile: int) -> np.ndarray:
    """Reads a tile [tile, tile, K], padded by reflection beyond the image."""
    part = np.asarray(image[y : y + tile, x : x + tile])
    return part if part.shape[:2] == (tile, tile) else reflect(part, 0, (tile, tile))


def batched(items: list[int], size: int) -> Iterator[list[int]]:
    """Yields lists of up to `size` items."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def default_batch_size() -> int:
    """1 on a CPU, where larger batches are not faster, and 8 elsewhere."""
    return 1 if jax.default_backend() == "cpu" else 8


def _row_of_tiles(
    predict: PredictFn,
    image: Source,
    y: int,
    xs: list[int],
    tile: int,
    batch_size: int | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (x, probabilities [tile, tile, C]) of the tiles at row y."""
    rows = default_batch_size() if batch_size is None else batch_size
    for part in batched(xs, rows):
        tiles = [read_tile(image, y, x, tile) for x in part]
        tiles += tiles[:1] * (rows - len(part))
        yield from zip(part, np.asarray(predict(np.stack(tiles))), strict=False)


def _coverage(starts: list[int], weights: np.ndarray, length: int) -> np.ndarray:
    """Sums the weights of all tiles at each pixel, [length]."""
    total = np.zeros(max(length, starts[-1] + len(weights)), np.float32)
    for start in starts:
        total[start : start + len(weights)] += weights
    return total[:length]


def _check(tile: int, overlap: float) -> None:
    if tile < 1 or not 0 <= overlap < 1:
        raise UserError(
            f"sliding_window needs a tile of at least 1 pixel and an overlap of at "
            f"least 0 and below 1, got {tile} and {overlap}."
        )
