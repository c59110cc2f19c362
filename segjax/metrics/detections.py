"""Average precision and matching of detections."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from segjax import ops
from segjax.errors import UserError
from segjax.metrics.average_precision import (
    AveragePrecision,
    check_max_detections,
    pycocotools,
)
from segjax.metrics.combine import Combined, on_host
from segjax.metrics.matching import Matching
from segjax.ops import checks
from segjax.typing import Batch, MetricFn

_FOUND = ("boxes", "scores", "classes", "object_mask", "masks")
_TRUE = ("boxes", "classes", "object_mask", "masks", "crowd")
_OBJECT = 0.5  # Pixels of a pasted mask with at least this probability are object.


def detections(
    classes: Sequence[str],
    *,
    score_threshold: float = 0.5,
    max_detections: Sequence[int] = (1, 10, 100),
    boundary_ratio: float | None = None,
) -> MetricFn:
    """Builds COCO's average precision and `Matching` of detections.

    Masks are pasted and compared on the host, once per batch, outside the step.

    Args:
        classes: Names of all classes, background first.
        score_threshold: Detections with lower scores are left out of matching. Average
            precision includes them.
        max_detections: Ascending numbers of detections per image, for average
            precision and recall.
        boundary_ratio: Scores boundaries too, of a width that is this fraction of the
            image's diagonal, rounded to pixels and at least 1; the paper's is 0.02.
            None: it does not.

    Returns:
        `(outputs, batch) -> OnHost`. Outputs have `boxes` [B, D, 4], `scores`,
        `classes` and `object_mask` [B, D], `masks` [B, D, M, M], probabilities inside
        the boxes, and `aligned`, their alignment. The batch has `boxes`, `classes`,
        `object_mask` and `masks` [B, N, H, W], and may have `crowd` [B, N], besides
        `valid`, `index` and `weight`. The scores are those of `AveragePrecision` and,
        over objects of all classes, of `Matching`. In matching, a pixel belongs to the
        detection with the highest score that covers it, and detections with at least
        half their pixels in crowd regions are left out.

    Raises:
        ValueError: If there is no class besides the background, or pycocotools is not
            installed.
    """
    max_detections = check_max_detections(max_detections)
    if boundary_ratio is not None:
        checks.number(
            "detections", "boundary_ratio", boundary_ratio, least=0, above=True
        )
    pycocotools("cocoeval")  # Missing before training, not after it.
    names = tuple(classes)[1:]
    if not names:
        raise UserError(
            f"detections needs a class besides the background, got {tuple(classes)}. "
            f"Give the names of the data set."
        )

    def gather(outputs: Any, batch: Batch) -> Mapping[str, Any]:
        missing = [name for name in _TRUE[:-1] if name not in batch]
        if missing:
            raise UserError(
                f"detections needs a batch with objects, got none of "
                f"{', '.join(missing)}. Set max_objects=N in the pipeline."
            )
        found = {name: getattr(outputs, name) for name in _FOUND}
        return found | {"aligned": jnp.full(len(outputs.object_mask), outputs.aligned)}

    def make(arrays: Mapping[str, Any], batch: Batch) -> Combined:
        # Padding rows are dropped before the slow part.
        kept = np.asarray(batch["weight"]) > 0
        kept = slice(None) if kept.all() else kept  # Avoids a copy of all masks.
        found = {k: np.asarray(v)[kept] for k, v in arrays.items()}
        true = {k: np.asarray(batch[k])[kept] for k in _TRUE if k in batch}
        rows = {k: np.asarray(batch[k])[kept] for k in ("valid", "index", "weight")}
        found["masks"] = _pasted(found, size=rows["valid"].shape[1:])
        width = None
        if boundary_ratio is not None:
            width = max(1, round(boundary_ratio * math.hypot(*rows["valid"].shape[1:])))
        precision = AveragePrecision.from_batch(
            *(found, true, rows),
            classes=names,
            max_detections=max_detections,
            boundary_width=width,
        )
        crowd = true.get("crowd", np.zeros(true["object_mask"].shape, bool))
        real = true["object_mask"] & ~crowd
        sure = found["object_mask"] & (found["scores"] >= score_threshold)
        if np.any(true["object_mask"] & crowd):
            sure &= ~_in_crowd(found["masks"], _ids(true["masks"], crowd) > 0)
        matching = Matching.from_batch(
            _ids(found["masks"], sure), _ids(true["masks"], real), rows["valid"], rows
        )
        return Combined((precision, matching), ("", ""))

    return on_host(gather, make)


def _pasted(found: Mapping[str, np.ndarray], *, size: Sequence[int]) -> np.ndarray:
    """Bool [B, D, H, W]."""
    pasted = np.zeros((*found["object_mask"].shape, *size), bool)
    for image, slot in zip(*np.nonzero(found["object_mask"]), strict=True):
        # One at a time, because all masks of an image as floats can exceed a gigabyte.
        mask, box = (found[k][image, slot][None] for k in ("masks", "boxes"))
        aligned = bool(found["aligned"][image])
        probability = ops.paste_masks_on_host(mask, box, size=size, aligned=aligned)
        pasted[image, slot] = probability[0] >= _OBJECT
    return pasted


def _ids(masks: np.ndarray, object_mask: np.ndarray) -> np.ndarray:
    """Converts bool [B, N, H, W] to int32 ids [B, H, W]; 0 where there is no object."""
    ids = np.zeros((len(masks), *masks.shape[2:]), np.int32)
    for image, picked in enumerate(object_mask):
        for number in np.flatnonzero(picked)[::-1]:  # The first one is on top.
            ids[image][masks[image, number]] = number + 1
    return ids


def _in_crowd(masks: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[B, D]: whether at least half of a mask [H, W] lies in the crowd [B, H, W]."""
    inside = (masks & crowd[:, None]).sum((2, 3))
    return (inside > 0) & (2 * inside >= masks.sum((2, 3)))
