"""Transforms of detection functions: tiles, flips and ensembles, merged by NMS.

A detection function maps images [B, H, W, K] as stored to one `Objects` per image.
"""

from collections.abc import Callable, Sequence

import numpy as np

from segjax.errors import UserError
from segjax.inference import objects as objects_lib
from segjax.inference import windows
from segjax.inference.objects import Objects
from segjax.inference.transforms import DIHEDRAL, Dihedral
from segjax.typing import Array

DetectFn = Callable[[Array], list[Objects]]
"""`images [B, H, W, K] as stored -> one Objects per image`."""


def sliding_window_objects(
    detect: DetectFn,
    *,
    tile: int = 512,
    overlap: float = 0.25,
    batch_size: int | None = None,
    iou_threshold: float = 0.5,
) -> DetectFn:
    """Detects in overlapping tiles of one shape, and merges across their borders.

    An object that a tile cuts is replaced by that of a tile which holds it whole, so
    the overlap should be at least the size of the objects. Of an object larger than
    the overlap, parts can remain.

    Args:
        detect: Called with [batch_size, tile, tile, K] only.
        tile: Side of the tiles, in pixels.
        overlap: Smallest fraction of a tile that neighbors share, in [0, 1).
        batch_size: Tiles per call; by default 1 on a CPU and 8 elsewhere.
        iou_threshold: See `merge_objects`.
    """

    def tiled(images: Array) -> list[Objects]:
        return [
            tiled_objects(
                detect,
                np.asarray(image),
                tile=tile,
                overlap=overlap,
                batch_size=batch_size,
                iou_threshold=iou_threshold,
            )
            for image in images
        ]

    return tiled


def tiled_objects(
    detect: DetectFn,
    image: windows.Source,
    *,
    tile: int = 512,
    overlap: float = 0.25,
    batch_size: int | None = None,
    iou_threshold: float = 0.5,
    done: Callable[[float], None] = lambda fraction: None,
) -> Objects:
    """`sliding_window_objects` of one image, which may be a file read in parts.

    Args:
        detect: See `sliding_window_objects`.
        image: [H, W, K] as stored.
        tile: See `sliding_window_objects`.
        overlap: See `sliding_window_objects`.
        batch_size: See `sliding_window_objects`.
        iou_threshold: See `merge_objects`.
        done: Called with the finished fraction of the image.
    """
    height, width = size = (int(image.shape[0]), int(image.shape[1]))
    starts = [windows.tile_starts(n, tile, overlap) for n in size]
    places = [(y, x) for y in starts[0] for x in starts[1]]
    rows = windows.default_batch_size() if batch_size is None else batch_size
    found, is_cut = [], []
    for first in range(0, len(places), rows):
        part = places[first : first + rows]
        tiles = [windows.read_tile(image, y, x, tile) for y, x in part]
        tiles += tiles[:1] * (rows - len(part))
        for (y, x), own in zip(part, detect(np.stack(tiles)), strict=False):
            own = _inside(own, min(tile, height - y), min(tile, width - x))
            is_cut.append(_is_cut(own, tile, y, x, size))
            found.append(own.shifted(y, x, size))
        done((first + len(part)) / len(places))
    return merge_objects(
        found, iou_threshold=iou_threshold, is_cut=np.concatenate(is_cut)
    )


def tta_objects(
    detect: DetectFn,
    *,
    transforms: Sequence[Dihedral] = DIHEDRAL,
    iou_threshold: float = 0.5,
) -> DetectFn:
    """Detects in transformed images, and merges the detections by NMS.

    Args:
        detect: The detection function.
        transforms: Flips and turns, which are inverted exactly.
        iou_threshold: See `merge_objects`.
    """
    if not transforms:
        raise UserError("tta_objects needs at least one transform, got none.")

    def augmented(images: Array) -> list[Objects]:
        size = (int(images.shape[1]), int(images.shape[2]))
        parts = []
        for transform in transforms:
            made = detect(np.ascontiguousarray(transform.apply(np.asarray(images))))
            parts.append([found.inverted(transform, size) for found in made])
        each = zip(*parts, strict=True)
        return [merge_objects(x, iou_threshold=iou_threshold) for x in each]

    return augmented


def ensemble_objects(
    detects: Sequence[DetectFn], *, iou_threshold: float = 0.5
) -> DetectFn:
    """Merges the detections of several detection functions by NMS."""
    if not detects:
        raise UserError("ensemble_objects needs a detection function, got none.")

    def merged(images: Array) -> list[Objects]:
        each = zip(*[detect(images) for detect in detects], strict=True)
        return [merge_objects(x, iou_threshold=iou_threshold) for x in each]

    return merged


def merge_objects(
    parts: Sequence[Objects],
    *,
    iou_threshold: float = 0.5,
    is_cut: np.ndarray | None = None,
) -> Objects:
    """Merges detections of one image by non-maximum suppression of masks.

    Args:
        parts: Detections of one image, such as of its tiles.
        iou_threshold: An object is dropped if the IoU of its mask with that of a kept
            one of its class is above it.
        is_cut: bool, for all objects in their order: those that a tile cut. They come
            last, the largest first, and are dropped also if the threshold's fraction
            of their own pixels is in a kept object.

    Returns:
        The kept objects, best first.
    """
    joined = objects_lib.concatenate(parts)
    cut = np.zeros(len(joined), bool) if is_cut is None else is_cut
    areas = joined.areas
    order = np.lexsort((-np.where(cut, areas, joined.scores), cut))
    kept: list[int] = []
    boxes = _extents(joined)
    for i in order.tolist():
        near = _touching(boxes[i], boxes[kept]) if kept else np.zeros(0, int)
        if not any(
            joined.classes[i] == joined.classes[kept[k]]
            and _covers(joined, kept[k], i, areas, iou_threshold, cut=bool(cut[i]))
            for k in near.tolist()
        ):
            kept.append(i)
    kept.sort(key=lambda i: (-joined.scores[i], i))
    return joined.take(kept)


def _covers(
    found: Objects, a: int, b: int, areas: np.ndarray, threshold: float, *, cut: bool
) -> bool:
    """Whether kept object `a` suppresses `b`."""
    (ay, ax), (by, bx) = found.corners[a].tolist(), found.corners[b].tolist()
    one, two = found.masks[a], found.masks[b]
    y0, x0 = max(ay, by), max(ax, bx)
    y1 = min(ay + one.shape[0], by + two.shape[0])
    x1 = min(ax + one.shape[1], bx + two.shape[1])
    if y1 <= y0 or x1 <= x0:
        return False
    shared = int(
        np.count_nonzero(
            one[y0 - ay : y1 - ay, x0 - ax : x1 - ax]
            & two[y0 - by : y1 - by, x0 - bx : x1 - bx]
        )
    )
    union = int(areas[a] + areas[b]) - shared
    return shared > threshold * union or (cut and shared > threshold * int(areas[b]))


def _extents(found: Objects) -> np.ndarray:
    """Rows and columns of the masks, int [n, 4] (y0, x0, y1, x1)."""
    sides = np.array([m.shape for m in found.masks], np.int64).reshape(-1, 2)
    return np.concatenate([found.corners, found.corners + sides], axis=1)


def _touching(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Positions of the boxes that share a pixel with `box`."""
    touches = (box[:2] < others[:, 2:]).all(1) & (others[:, :2] < box[2:]).all(1)
    return np.flatnonzero(touches)


def _inside(found: Objects, height: int, width: int) -> Objects:
    """Drops what lies in the padding of a tile; crops masks that reach into it."""
    if found.size == (height, width):
        return found
    ids = [
        objects_lib.cropped(found.masks[i], found.corners[i], (height, width))
        for i in range(len(found))
    ]
    kept = [i for i, (_, mask) in enumerate(ids) if mask.size]
    edge = np.array([width, height, width, height], np.float32)
    return Objects(
        size=(height, width),
        boxes=np.minimum(found.boxes[kept], edge),
        scores=found.scores[kept],
        classes=found.classes[kept],
        masks=tuple(ids[i][1] for i in kept),
        corners=np.array([ids[i][0] for i in kept], np.int32).reshape(-1, 2),
    )


def _is_cut(
    found: Objects, tile: int, y: int, x: int, size: tuple[int, int]
) -> np.ndarray:
    """Whether objects of a tile at (y, x) reach its border inside the image, [n]."""
    y0, x0, y1, x1 = _extents(found).T
    cut = np.zeros(len(found), bool)
    if y > 0:
        cut |= y0 == 0
    if x > 0:
        cut |= x0 == 0
    if y + tile < size[0]:
        cut |= y1 == tile
    if x + tile < size[1]:
        cut |= x1 == tile
    return cut
