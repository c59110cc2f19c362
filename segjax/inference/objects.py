"""Detected objects on the host, with masks that are cropped to their pixels."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.ndimage

from segjax.inference.transforms import Dihedral

_OBJECT = 0.5  # Pixels of a predicted mask with at least this probability are object.


@dataclasses.dataclass(frozen=True)
class Objects:
    """n objects of an image; memory does not depend on the size of the image.

    Attributes:
        size: (height, width) of the image.
        boxes: float32 [n, 4], (x0, y0, x1, y1) in pixels, edges at whole numbers.
        scores: float32 [n]; 1 where objects have no score.
        classes: int32 [n], class ids from 1.
        masks: n arrays bool [h, w], each cropped to the object's pixels; [0, 0] for an
            object without pixels.
        corners: int32 [n, 2], the (row, column) of each mask's first pixel.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: tuple[np.ndarray, ...]
    corners: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, index: Sequence[int] | np.ndarray) -> "Objects":
        """Selects objects by their positions, in that order."""
        index = np.asarray(index, np.int64)
        return dataclasses.replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            classes=self.classes[index],
            corners=self.corners[index],
            masks=tuple(self.masks[i] for i in index),
        )

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each object, int64 [n]."""
        return np.array([mask.sum() for mask in self.masks], np.int64).reshape(-1)

    def id_map(self) -> np.ndarray:
        """Draws the objects into one map, [H, W]: numbers from 1, the first on top.

        Returns:
            uint16; uint32 for more than 65,535 objects.
        """
        dtype = np.uint16 if len(self) < 2**16 else np.uint32
        ids = np.zeros(self.size, dtype)
        for number in range(len(self), 0, -1):
            mask, (y, x) = self.masks[number - 1], self.corners[number - 1]
            ids[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = number
        return ids

    def shifted(self, y: int, x: int, size: tuple[int, int]) -> "Objects":
        """Places the objects of a tile into an image of `size`, tile at (y, x)."""
        return dataclasses.replace(
            self,
            size=size,
            boxes=self.boxes + np.array([x, y, x, y], np.float32),
            corners=self.corners + np.array([y, x], np.int32),
        )

    def inverted(self, transform: Dihedral, size: tuple[int, int]) -> "Objects":
        """Undoes a transform of the image, which has `size` without it."""
        masks = tuple(transform.invert(m[None])[0] for m in self.masks)
        boxes = np.array([_inverted(b, transform, self.size) for b in self.boxes])
        ends = [
            (x, y, x + m.shape[1], y + m.shape[0])
            for m, (y, x) in zip(self.masks, self.corners.tolist(), strict=True)
        ]
        corners = [_inverted(end, transform, self.size)[1::-1] for end in ends]
        return dataclasses.replace(
            self,
            size=size,
            boxes=boxes.astype(np.float32).reshape(-1, 4),
            corners=np.array(corners, np.int32).reshape(-1, 2),
            masks=masks,
        )


def from_masks(
    masks: np.ndarray,
    *,
    boxes: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> Objects:
    """Builds objects of masks of the image's size.

    Args:
        masks: [n, H, W] bool, or probabilities, at least 0.5 on the object.
        boxes: [n, 4]; by default tight around the masks.
        scores: [n], by default 1.
        classes: [n], by default 1.
    """
    cropped = [_cropped(mask >= _OBJECT) for mask in masks]
    corners = np.array([corner for corner, _ in cropped], np.int32).reshape(-1, 2)
    parts = tuple(mask for _, mask in cropped)
    return _of_parts(parts, corners, masks.shape[1:], boxes, scores, classes)


def from_ids(
    ids: np.ndarray,
    *,
    classes: Mapping[int, int] | None = None,
    scores: Mapping[int, float] | None = None,
) -> Objects:
    """Builds objects of a map [H, W] of ids, 0 for none, in the order of the ids.

    Args:
        ids: Integers of at least 0.
        classes: Class of each id; 1 if absent.
        scores: Score of each id; 1 if absent.
    """
    found = np.unique(ids)
    found = found[found > 0]
    # Numbered densely, since the search takes memory for every number.
    dense = np.searchsorted(found, ids) + 1 if found.size else ids
    dense = np.where(ids > 0, dense, 0).astype(np.int32)
    places = [p for p in scipy.ndimage.find_objects(dense) if p is not None]
    masks = tuple(
        np.ascontiguousarray(dense[place] == i) for i, place in enumerate(places, 1)
    )
    corners = np.array([(y.start, x.start) for y, x in places], np.int32)
    numbers = found.tolist()
    return _of_parts(
        masks,
        corners.reshape(-1, 2),
        ids.shape,
        None,
        None if scores is None else np.array([scores[i] for i in numbers]),
        None if classes is None else np.array([classes[i] for i in numbers]),
    )


def from_output(output: Mapping[str, np.ndarray]) -> Objects:
    """Builds objects of an image's result of `models.instances`."""
    return from_masks(
        output["masks"],
        boxes=output["boxes"],
        scores=output["scores"],
        classes=output["classes"],
    )


def concatenate(parts: Sequence[Objects]) -> Objects:
    """Joins the objects of parts with one image size."""
    return Objects(
        size=parts[0].size,
        boxes=np.concatenate([x.boxes for x in parts]),
        scores=np.concatenate([x.scores for x in parts]),
        classes=np.concatenate([x.classes for x in parts]),
        masks=tuple(mask for x in parts for mask in x.masks),
        corners=np.concatenate([x.corners for x in parts]),
    )


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels the pixels [H, W] that are connected by their sides, from 1.

    Returns:
        (int32 [H, W], 0 where the mask is False; the number of components).
    """
    ids = np.zeros(mask.shape, np.int32)
    count = scipy.ndimage.label(mask, output=ids)
    return ids, int(count)  # pyright: ignore


def cropped(
    mask: np.ndarray, corner: Sequence[int] | np.ndarray, size: tuple[int, int]
) -> tuple[tuple[int, int], np.ndarray]:
    """Crops a mask at `corner` to an image of `size`, and to its pixels.

    Returns:
        (its corner, bool [h, w]), as in `Objects`.
    """
    y, x = (int(n) for n in corner)
    (dy, dx), part = _cropped(mask[: max(0, size[0] - y), : max(0, size[1] - x)])
    return (y + dy, x + dx), part


def _of_parts(masks, corners, size, boxes, scores, classes) -> Objects:
    tight = [
        (x, y, x + m.shape[1], y + m.shape[0])
        for m, (y, x) in zip(masks, corners.tolist(), strict=True)
    ]
    boxes = np.array(tight if boxes is None else boxes, np.float32)
    ones = np.ones(len(masks))
    return Objects(
        size=(int(size[0]), int(size[1])),
        boxes=boxes.reshape(-1, 4),
        scores=np.asarray(ones if scores is None else scores, np.float32),
        classes=np.asarray(ones if classes is None else classes, np.int32),
        masks=masks,
        corners=corners,
    )


def _cropped(mask: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return (0, 0), np.zeros((0, 0), bool)
    y, x = int(rows[0]), int(columns[0])
    return (y, x), mask[y : rows[-1] + 1, x : columns[-1] + 1].copy()


def _inverted(box, transform: Dihedral, size: tuple[int, int]) -> np.ndarray:
    """Undoes a transform of a box of an image that has `size` with it."""
    x0, y0, x1, y1 = (float(edge) for edge in box)
    height, width = size
    if transform.turns >= 2:
        x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
    if transform.turns % 2:
        y0, y1 = height - y1, height - y0
        x0, y0, x1, y1 = y0, x0, y1, x1
        width = height
    if transform.mirror:
        x0, x1 = width - x1, width - x0
    return np.array([x0, y0, x1, y1])
