"""Objects for instance segmentation: cut to a window, in a fixed number of slots."""

import sys
from collections.abc import Mapping

import numpy as np

from segjax import ops
from segjax.data.form import ALL, Window
from segjax.data.objects import Objects, objects_of
from segjax.data.pad import pad_to_size
from segjax.typing import Example


def cut(example: Mapping[str, np.ndarray], window: Window) -> Objects:
    """The objects of an example as far as they lie in a window.

    Args:
        example: As `Reader` has it. An object of an `instances` map whose first pixel
            in the window is void or background has no class, and is dropped.
        window: Which part of the image.

    Returns:
        Objects with at least one pixel, with masks of the size of the window.
    """
    if "objects" in example:
        found = objects_of({**example, "objects": example["objects"].item()})
        found = _pick(found, np.arange(len(found.classes)), window)
        has_class = found.classes != 0
    else:  # Cropped as a map: a mask an object of the whole image would be large.
        names = ("label", "instances")
        found = objects_of({k: example[k][window] for k in names if k in example})
        ignored = ops.ignore_index(example["label"].dtype)
        has_class = (found.classes != 0) & (found.classes != ignored)
    there = found.masks.any((1, 2)) & has_class
    return _pick(found, np.flatnonzero(there), ALL)


def without_crowds(objects: Objects) -> Objects:
    """The objects that can be learned, as torchvision's reference picks them too."""
    return _pick(objects, np.flatnonzero(~objects.crowd), ALL)


def fill(objects: Objects, size: tuple[int, int], *, limit: int) -> Example:
    """Puts objects into slots.

    Args:
        objects: With masks no larger than `size`.
        size: (height, width) of the batch.
        limit: N. If there are more objects, the largest are kept, and of equally
            large ones the first.

    Returns:
        `boxes` float32 [N, 4], (x0, y0, x1, y1) in pixels, edges at whole numbers,
        tight around `masks` bool [N, H, W]; `classes` int32 [N] in [1, K];
        `object_mask` and `crowd` bool [N]; in the order of the objects, then slots of
        zeros. `size` int32 [2], (height, width) of the masks before they were padded.
        `left_out` int32, how many objects found no slot.
    """
    areas = objects.masks.sum((1, 2))
    kept = np.sort(np.argsort(-areas, kind="stable")[:limit])
    chosen = _pick(objects, kept, ALL)
    found = filler(size, limit=limit)
    for slot, mask in enumerate(chosen.masks):
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        found["boxes"][slot] = box
        found["masks"][slot] = pad_to_size(mask, size)
    found["classes"][: len(kept)] = chosen.classes
    found["crowd"][: len(kept)] = chosen.crowd
    found["object_mask"][: len(kept)] = True
    found["size"][:] = objects.masks.shape[1:]
    return found | {"left_out": np.int32(len(areas) - len(kept))}


def filler(size: tuple[int, int], *, limit: int) -> Example:
    """What `fill` gives for an image of `size` without objects."""
    return {
        "boxes": np.zeros((limit, 4), np.float32),
        "classes": np.zeros(limit, np.int32),
        "masks": np.zeros((limit, *size), bool),
        "object_mask": np.zeros(limit, bool),
        "crowd": np.zeros(limit, bool),
        "size": np.array(size, np.int32),
        "left_out": np.int32(0),
    }


def _pick(objects: Objects, which: np.ndarray, window: Window) -> Objects:
    masks = objects.masks[which][:, *window]
    return Objects(masks, objects.classes[which], objects.crowd[which])


class Overflow:
    """Says on standard error how many objects found no slot.

    A line comes with the first image of a split that has too many objects, and again
    whenever the number of such images has doubled.
    """

    def __init__(self, name: str, limit: int | None):
        """Nothing yet; `name` is the pipeline's attribute that sets the `limit`."""
        self._name, self._limit = name, limit
        self._found: dict[str, dict[int, int]] = {}

    def take(self, batch: Example, numbers: np.ndarray, split: str) -> None:
        """Takes `left_out` out of a batch, if it has that, and counts it.

        Args:
            batch: Changed in place.
            numbers: [B], which example each row is.
            split: Of what.
        """
        left_out = batch.pop("left_out", np.zeros(0))
        for row in np.flatnonzero(left_out):
            self._add(split, int(numbers[row]), int(left_out[row]))

    def _add(self, split: str, number: int, left_out: int) -> None:
        images = self._found.setdefault(split, {})
        known = number in images
        images[number] = max(left_out, images.get(number, 0))
        if not known and len(images).bit_count() == 1:  # A power of two.
            print(
                f"warning: {self._name}={self._limit} left out {sum(images.values())} "
                f"objects, the smallest, of {len(images)} image(s) of {split!r} so "
                f"far, lastly {left_out} of record {number}. Raise it to keep them.",
                file=sys.stderr,
            )
