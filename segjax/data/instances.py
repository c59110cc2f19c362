"""Objects for instance segmentation: cropped, in a fixed number of slots."""

import sys
from collections.abc import Mapping

import numpy as np

from segjax import ops
from segjax.data.objects import Objects, objects_of
from segjax.data.pad import pad_to_size
from segjax.data.spec import ALL, Window
from segjax.typing import Example


def crop(example: Mapping[str, np.ndarray], window: Window) -> Objects:
    """Crops the objects of an example to a window.

    Args:
        example: From `Reader`. An object of an `instances` map whose first pixel in the
            window is ignored or background has no class and is dropped.
        window: Rows and columns of the image.

    Returns:
        The objects with at least one pixel in the window; masks have its size.
    """
    if "objects" in example:
        found = objects_of({**example, "objects": example["objects"].item()})
        found = _pick(found, np.arange(len(found.classes)), window)
        has_class = found.classes != 0
    else:  # Cropped before masks are made: full-size masks would need much memory.
        names = ("label", "instances")
        found = objects_of({k: example[k][window] for k in names if k in example})
        ignored = ops.ignore_index(example["label"].dtype)
        has_class = (found.classes != 0) & (found.classes != ignored)
    there = found.masks.any((1, 2)) & has_class
    return _pick(found, np.flatnonzero(there), ALL)


def without_crowds(objects: Objects) -> Objects:
    """Removes crowds, which are not trained on; as torchvision's reference does."""
    return _pick(objects, np.flatnonzero(~objects.crowd), ALL)


def fill(objects: Objects, size: tuple[int, int], *, limit: int) -> Example:
    """Pads objects to a fixed number of slots.

    Args:
        objects: With masks no larger than `size`.
        size: (height, width) of the batch.
        limit: N. If there are more objects, the largest are kept; of equally large
            ones, the first.

    Returns:
        `boxes` float32 [N, 4], (x0, y0, x1, y1) in pixels, edges at whole numbers,
        tight around `masks` bool [N, H, W]; `classes` int32 [N] in [1, K];
        `object_mask` and `crowd` bool [N]; in the order of the objects, then slots of
        zeros. `size` int32 [2], (height, width) of the masks before padding.
        `num_dropped` int32, the number of objects beyond N.
    """
    areas = objects.masks.sum((1, 2))
    kept = np.sort(np.argsort(-areas, kind="stable")[:limit])
    chosen = _pick(objects, kept, ALL)
    found = no_objects(size, limit=limit)
    for slot, mask in enumerate(chosen.masks):
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        found["boxes"][slot] = box
        found["masks"][slot] = pad_to_size(mask, size)
    found["classes"][: len(kept)] = chosen.classes
    found["crowd"][: len(kept)] = chosen.crowd
    found["object_mask"][: len(kept)] = True
    found["size"][:] = objects.masks.shape[1:]
    return found | {"num_dropped": np.int32(len(areas) - len(kept))}


def no_objects(size: tuple[int, int], *, limit: int) -> Example:
    """Returns what `fill` returns for an image of `size` without objects."""
    return {
        "boxes": np.zeros((limit, 4), np.float32),
        "classes": np.zeros(limit, np.int32),
        "masks": np.zeros((limit, *size), bool),
        "object_mask": np.zeros(limit, bool),
        "crowd": np.zeros(limit, bool),
        "size": np.array(size, np.int32),
        "num_dropped": np.int32(0),
    }


def _pick(objects: Objects, which: np.ndarray, window: Window) -> Objects:
    masks = objects.masks[which][:, *window]
    return Objects(masks, objects.classes[which], objects.crowd[which])


class Overflow:
    """Warns on standard error about objects of crops that did not fit into the slots.

    Warns at the first image of a split that has too many objects, and again whenever
    the number of such images has doubled.
    """

    def __init__(self, limit: int | None):
        """Starts with no images; `limit` is the pipeline's `max_objects`."""
        self._limit = limit
        self._found: dict[str, dict[int, int]] = {}

    def take(self, batch: Example, numbers: np.ndarray, split: str) -> None:
        """Removes `num_dropped` from a batch, if present, and counts it.

        Args:
            batch: Changed in place.
            numbers: [B] example numbers of the rows.
            split: The split of the batch.
        """
        num_dropped = batch.pop("num_dropped", np.zeros(0))
        for row in np.flatnonzero(num_dropped):
            self._add(split, int(numbers[row]), int(num_dropped[row]))

    def _add(self, split: str, number: int, num_dropped: int) -> None:
        images = self._found.setdefault(split, {})
        known = number in images
        images[number] = max(num_dropped, images.get(number, 0))
        if not known and len(images).bit_count() == 1:  # A power of two.
            print(
                f"warning: max_objects={self._limit} dropped {sum(images.values())} "
                f"objects, the smallest, of {len(images)} image(s) of {split!r} so "
                f"far, most recently {num_dropped} of record {number}. Raise "
                f"max_objects to keep them.",
                file=sys.stderr,
            )
