"""Reading the objects of a stored example, from run lengths or an instance map."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import ops, optional
from segjax.data import stored
from segjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Objects:
    """K objects of an image of H by W pixels, in the order of the data set.

    Attributes:
        masks: bool [K, H, W]; they may overlap, and one may be empty.
        classes: int32 [K], 1..; 0 would be background.
        crowd: bool [K]; True for a region of many objects, which COCO's evaluation
            ignores.
    """

    masks: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


def objects_of(example: Mapping[str, Any]) -> Objects:
    """Reads the objects of an example.

    Args:
        example: With `objects`, JSON from `encode_objects`; or with `instances`
            [H, W], 0 for background, and `label` [H, W], whose value at the first
            pixel of an object is its class.

    Raises:
        ValueError: If it has neither.
    """
    if "objects" in example:
        return _decode(example["objects"], np.asarray(example["label"]).shape)
    instances = _instances(example)
    ids, first = np.unique(instances, return_index=True)
    first = first[ids > 0]
    ids = ids[ids > 0]
    return Objects(
        masks=instances[None] == ids[:, None, None],
        classes=np.asarray(example["label"]).ravel()[first].astype(np.int32),
        crowd=np.zeros(len(ids), bool),
    )


def count_objects(example: Mapping[str, Any]) -> int:
    """Counts what `objects_of` would return, without decoding masks."""
    if "objects" in example:
        return len(json.loads(np.asarray(example["objects"]).item()))
    return int(np.count_nonzero(np.unique(_instances(example))))


def draw_object(example: Mapping[str, Any], number: int) -> np.ndarray:
    """Returns the mask of one object without decoding the others.

    Args:
        example: See `objects_of`.
        number: Of the object, modulo their number; crowds do not count.

    Returns:
        bool [H, W], empty without objects.
    """
    if "objects" in example:
        rows = [r for r in json.loads(example["objects"]) if not r[1]]
        size = np.shape(example["label"])
        return _mask(rows[number % len(rows)], size) if rows else np.zeros(size, bool)
    instances = _instances(example)
    ids = np.unique(instances)
    ids = ids[ids > 0]
    return instances == ids[number % len(ids)] if len(ids) else instances > 0


def encode_objects(
    rles: Sequence[Mapping[str, Any]], classes: Sequence[int], crowd: Sequence[bool]
) -> str:
    """Encodes objects as compact JSON, without loss.

    Args:
        rles: COCO's compressed run lengths, `{"size": [H, W], "counts": bytes}`.
        classes: Class ids, 1..
        crowd: Whether each is a crowd.
    """
    rows = zip(rles, classes, crowd, strict=True)
    return json.dumps([[k, int(c), r["counts"].decode("ascii")] for r, k, c in rows])


def draw_label(
    rles: Sequence[Any],
    classes: Sequence[int],
    crowd: Sequence[bool],
    size: tuple[int, int],
    num_classes: int,
) -> np.ndarray:
    """Draws crowds as ignored, then objects from the largest to the smallest.

    Args:
        rles: COCO's compressed run lengths.
        classes: Class ids, 1..
        crowd: Whether each is a crowd.
        size: (height, width).
        num_classes: C, with background.

    Returns:
        uint8 or uint16 [H, W].
    """
    label = np.zeros(size, stored.label_dtype(num_classes))
    ignored, masks = ops.ignore_index(label.dtype), coco_mask()
    areas = [int(masks.area(r)) for r in rles]
    order = sorted(range(len(rles)), key=lambda i: (not crowd[i], -areas[i]))
    for i in order:
        inside = masks.decode(rles[i]).astype(bool)
        label[inside] = ignored if crowd[i] else classes[i]
    return label


def _instances(example: Mapping[str, Any]) -> np.ndarray:
    if "instances" not in example:
        raise UserError(
            f"This needs a data set with objects, got examples with "
            f"{', '.join(sorted(example))} only. Use digits, dsb2018, coco or "
            f"instance_folder."
        )
    return np.asarray(example["instances"])


def _decode(text: str | bytes, size: tuple[int, int]) -> Objects:
    rows = json.loads(text)
    masks = np.zeros((len(rows), *size), bool)
    for mask, row in zip(masks, rows, strict=True):
        mask[:] = _mask(row, size)
    return Objects(
        masks=masks,
        classes=np.array([k for k, _, _ in rows], np.int32),
        crowd=np.array([c for _, c, _ in rows], bool),
    )


def _mask(row: Sequence[Any], size: tuple[int, ...]) -> np.ndarray:
    """Decodes an object of `encode_objects`, bool [H, W]."""
    decode = coco_mask().decode
    return decode({"size": list(size), "counts": row[2].encode()}).astype(bool)


def coco_mask() -> Any:
    """The module `pycocotools.mask`; a ValueError if it is not installed."""
    return optional.require(
        "pycocotools.mask", extra="coco", purpose="COCO annotations"
    )
