"""Chooses by memory how `segjax predict` runs an image: batched, whole or in tiles."""

import collections
from collections.abc import Sequence

import jax

from segjax.cli.predict_work import Tiles, Work
from segjax.inference import windows

Size = tuple[int, int]
"""(height, width) in pixels."""

SIDE = 1024
"""Of a tile. An image of at most this many pixels, squared, is predicted whole."""

_SMALLEST_SIDE = 256
_BATCH_PIXELS = 2**22
"""Pixels of all images of a batch."""
_CPU_BYTES = 2**31
"""Temporary arrays of the network on a CPU."""


def tiles_of(work: Work, size: Size) -> Tiles | None:
    """Chooses tiles for an image; None to predict it whole.

    Without --tile, an image is predicted whole if the network's temporary arrays fit
    into the memory budget. They grow with the pixels, so they are asked for one tile.
    """
    chosen = work.settings.tile
    if chosen is not None:
        return Tiles(chosen) if chosen else None
    if size[0] * size[1] <= SIDE**2 or whole_bytes(work, size) <= budget():
        return None
    side = SIDE
    while side > _SMALLEST_SIDE and work.temporary_bytes(side) > budget():
        side //= 2
    fitting = budget() // max(1, work.temporary_bytes(side))
    return Tiles(side, min(windows.default_batch_size(), max(1, fitting)))


def whole_bytes(work: Work, size: Size) -> int:
    """Estimates the network's temporary arrays for an image that is predicted whole."""
    return work.temporary_bytes(SIDE) * size[0] * size[1] // SIDE**2


def budget() -> int:
    """Returns the bytes that the network's temporary arrays may take."""
    if jax.default_backend() == "cpu":
        return _CPU_BYTES
    found = jax.local_devices()[0].memory_stats() or {}
    return found.get("bytes_limit", 2 * _CPU_BYTES) // 2


def note(work: Work, name: str, size: Size, tiles: Tiles) -> str:
    """Says that an image is predicted in tiles that nobody asked for."""
    return (
        f"{name} has {size[0] * size[1] / 1e6:.1f} megapixels: predicted in tiles of "
        f"{tiles.side} pixels, since the whole image would take about "
        f"{whole_bytes(work, size) / 1e9:.1f} GB (--tile 0 for the whole image)."
    )


def rows_by_size(sizes: Sequence[Size], *, most: int | None = None) -> dict[Size, int]:
    """Chooses how many whole images of each size go through the network at once.

    It depends on all images of the command, so that a resumed command batches them as
    an uninterrupted one does.

    Args:
        sizes: Of all images that are predicted whole.
        most: Images of a batch; `windows.default_batch_size()` unless given.
    """
    most = windows.default_batch_size() if most is None else most
    return {
        size: max(1, min(most, count, _BATCH_PIXELS // (size[0] * size[1])))
        for size, count in collections.Counter(sizes).items()
    }
