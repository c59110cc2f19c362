"""Runs pycocotools on annotations that are in memory."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from segjax import optional

_AREAS = ("all", "_small", "_medium", "_large")  # The order of COCOeval's parameters.
_KINDS: dict[str, Any] = {"box": "bbox", "mask": "segm", "boundary": "segm"}


def evaluate(
    truth: np.ndarray,
    detections: np.ndarray,
    kind: str,
    classes: Sequence[str],
    *,
    max_detections: Sequence[int],
) -> dict[str, float]:
    """Computes the COCO scores of all classes and of each; NaN where COCO has -1.

    Args:
        truth: Object array [N] of lists of annotations, without ids.
        detections: Likewise.
        kind: "box", "mask" or "boundary".
        classes: K names.
        max_detections: Ascending numbers of detections per image.
    """
    evaluation = pycocotools("cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        true, found = (_coco(x, kind, len(classes)) for x in (truth, detections))
        compare = _boundary_evaluation() if kind == "boundary" else evaluation.COCOeval
        coco = compare(true, found, _KINDS[kind])
        coco.params.maxDets = list(max_detections)
        coco.evaluate()
        coco.accumulate()
    # [thresholds, recalls, classes, areas, most detections], and without recalls.
    precision, recall = coco.eval["precision"], coco.eval["recall"]
    # COCOeval's own summary has its numbers of detections written out.
    scores = _of_classes(precision[..., 0, -1], "")
    for i, area in enumerate(_AREAS[1:], 1):
        scores[f"ap{area}"] = _mean_of_defined(precision[..., i, -1])
        scores[f"ar{area}"] = _mean_of_defined(recall[..., i, -1])
    for i, most in enumerate(max_detections):
        scores[f"ar{most}"] = _mean_of_defined(recall[:, :, 0, i])
    for k, name in enumerate(classes):
        scores |= _of_classes(precision[:, :, k, 0, -1], f"/{name}")
        most = _mean_of_defined(recall[:, k, 0, -1])
        scores[f"ar{max_detections[-1]}/{name}"] = most
    return scores


def _boundary_evaluation() -> type:
    """COCOeval with the smaller IoU of masks and boundaries."""
    coco_mask = pycocotools("mask")

    class BoundaryEvaluation(pycocotools("cocoeval").COCOeval):
        def computeIoU(self, image, category):
            ious = super().computeIoU(image, category)
            if len(ious) == 0:
                return ious
            truth, found = (x[image, category] for x in (self._gts, self._dts))
            # As COCOeval orders and cuts them.
            order = np.argsort([-d["score"] for d in found], kind="mergesort")
            found = [found[i] for i in order[: self.params.maxDets[-1]]]
            bands = coco_mask.iou(
                [d["boundary"] for d in found],
                [t["boundary"] for t in truth],
                [int(t["iscrowd"]) for t in truth],
            )
            return np.minimum(ious, bands)

    return BoundaryEvaluation


def _of_classes(precision: np.ndarray, suffix: str) -> dict[str, float]:
    """Means over all IoU thresholds, and at 0.5 and 0.75."""
    parts = {"ap": precision, "ap50": precision[0], "ap75": precision[5]}
    return {f"{k}{suffix}": _mean_of_defined(v) for k, v in parts.items()}


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else float("nan")


def _coco(images: np.ndarray, kind: str, num_classes: int):
    # COCO requires sizes, but reads them for polygons only.
    sizes = [{"id": i, "height": 0, "width": 0} for i in range(1, len(images) + 1)]
    annotations = []
    for image, found in enumerate(images, 1):
        for one in found:
            # Ids begin at 1, because COCOeval reads 0 as "no match". Copied, because
            # COCO modifies annotations.
            annotations.append(
                dict(one, id=len(annotations) + 1, image_id=image)
                | {"area": one["areas"][kind], "iscrowd": one.get("iscrowd", 0)}
            )
    coco = pycocotools("coco").COCO()
    coco.dataset = {
        "images": sizes,
        "categories": [{"id": k} for k in range(1, num_classes + 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def pycocotools(module: str) -> Any:
    """A module of pycocotools; a ValueError if it is not installed."""
    return optional.require(
        f"pycocotools.{module}", extra="coco", purpose="COCO's average precision"
    )
