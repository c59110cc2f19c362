"""COCO average precision for boxes and masks, computed by pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import numpy as np

from segjax import optional
from segjax.errors import UserError
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch

_AREAS = ("all", "_small", "_medium", "_large")  # The order of COCOeval's parameters.
_KINDS: dict[str, Any] = {"box": "bbox", "mask": "segm"}


@flax.struct.dataclass
class AveragePrecision(RowMetric):
    """Detections and true objects of each image, collected for pycocotools.

    `rows.values` has `truth` and `detections`, each [N] lists of COCO annotations;
    masks are run-length encoded.

    Attributes:
        classes: K names; class 1 is the first, 0 is background and not scored.
        iou_types: What is scored: "box", or "box" and "mask".
        max_detections: Numbers of detections per image for which recall is computed;
            the last, COCO's 100, is for average precision too.

    Reference:
        Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312, as implemented in
        pycocotools.
    """

    classes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())
    iou_types: tuple[str, ...] = flax.struct.field(pytree_node=False, default=("box",))
    max_detections: tuple[int, ...] = flax.struct.field(
        pytree_node=False, default=(1, 10, 100)
    )

    @classmethod
    def from_batch(
        cls,
        detections: Mapping[str, Any],
        truth: Mapping[str, Any],
        batch: Batch,
        *,
        classes: Sequence[str],
        max_detections: Sequence[int] = (1, 10, 100),
    ) -> "AveragePrecision":
        """Encodes one batch, on the host.

        Args:
            detections: `boxes` [B, N, 4] as x0, y0, x1, y1 in pixels, `scores` and
                `classes` (1..K), each [B, N], and `object_mask` bool [B, N], False for
                padding; with `masks` bool [B, N, H, W], masks are also scored.
            truth: `boxes`, `classes`, `object_mask` and `masks` likewise; `crowd` bool
                [B, N] (default: none) marks crowd regions, in which detections are not
                false positives; `area` [B, N] in pixels determines small, medium and
                large (default: area of the mask, or of the box without masks).
            batch: Has `index` and `weight`, both [B].
            classes: K names.
            max_detections: Ascending numbers of detections per image, as in the
                attribute.

        Raises:
            ValueError: If only one of detections and truth has masks, or max_detections
                are not ascending whole numbers.
        """
        max_detections = check_max_detections(max_detections)
        sides = [{k: np.asarray(v) for k, v in x.items()} for x in (detections, truth)]
        masks = ["masks" in side for side in sides]
        if masks[0] != masks[1]:
            has = "detections" if masks[0] else "truth"
            raise UserError(
                f"average precision needs masks in both detections and truth or in "
                f"neither, got them in {has} only. Add the others, or remove these."
            )
        # Padding rows are left out before masks are encoded.
        kept = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        found = [
            _objects([_annotations(side, i) for i in kept.tolist()]) for side in sides
        ]
        rows = Rows(
            {"detections": found[0], "truth": found[1]},
            np.asarray(batch["index"])[kept],
            np.asarray(batch["weight"])[kept],
        )
        iou_types = ("box", "mask") if masks[0] else ("box",)
        return cls(rows, tuple(classes), iou_types, max_detections)

    def compute(self) -> dict[str, float]:
        """Scores in [0, 1] over the detections of the data set.

        Returns:
            For boxes `box_ap` (mean over classes and IoU thresholds .5 to .95),
            `box_ap50`, `box_ap75`, `box_ap_small`, `_medium`, `_large` (areas up to
            32**2, 96**2 and above), `box_ar1`, `_ar10`, `_ar100` (recall with at most
            so many detections per image, from `max_detections`), `box_ar_small`,
            `_medium`, `_large`, and `box_ap/<name>`, `box_ap50/<name>`,
            `box_ap75/<name>` and `box_ar100/<name>`; with masks also `mask_ap` and so
            on.
            As in COCO, a class without true objects has no score (NaN) and is left out
            of means, even if it was detected; a class with true objects but no
            detections scores 0. Images without true objects and detections have no
            effect.
        """
        rows = self.rows.without_padding().values
        scores: dict[str, float] = {}
        for kind in self.iou_types:
            found = _evaluate(
                *(rows["truth"], rows["detections"], kind, self.classes),
                max_detections=self.max_detections,
            )
            scores |= {f"{kind}_{key}": value for key, value in found.items()}
        return scores


def _objects(images: list[list[dict]]) -> np.ndarray:
    """Object array [N] of lists; np.array makes a table of lists of equal length."""
    array = np.empty(len(images), object)
    for i, annotations in enumerate(images):
        array[i] = annotations
    return array


def _annotations(side: Mapping[str, np.ndarray], image: int) -> list[dict[str, Any]]:
    """COCO annotations of one image, without ids; areas by kind."""
    coco_mask = pycocotools("mask")
    found = []
    for n in np.flatnonzero(side["object_mask"][image]):
        x0, y0, x1, y1 = side["boxes"][image, n].astype(np.float64).tolist()
        box = [x0, y0, x1 - x0, y1 - y0]
        one = {"category_id": int(side["classes"][image, n]), "bbox": box}
        one["areas"] = {"box": box[2] * box[3]}
        if "masks" in side:
            mask = np.asfortranarray(side["masks"][image, n], np.uint8)
            one["segmentation"] = coco_mask.encode(mask)
            one["areas"]["mask"] = int(mask.sum(dtype=np.int64))
        if "scores" in side:
            one["score"] = float(side["scores"][image, n])
        else:
            crowd = side["crowd"][image, n] if "crowd" in side else False
            # COCO takes the mask's area of true objects for boxes too.
            area = one["areas"].get("mask", one["areas"]["box"])
            area = float(side["area"][image, n]) if "area" in side else area
            one |= {"iscrowd": int(crowd), "areas": {"box": area, "mask": area}}
        found.append(one)
    return found


def check_max_detections(max_detections: Sequence[int]) -> tuple[int, ...]:
    """Returns the numbers as a tuple.

    Raises:
        ValueError: If they are not ascending whole numbers above 0, or none.
    """
    numbers = tuple(max_detections)
    for number in numbers:
        checks.whole_number("average precision", "max_detections", number, least=1)
    if not numbers or list(numbers) != sorted(set(numbers)):
        raise UserError(
            f"average precision needs ascending max_detections, got {numbers}. COCO "
            f"has (1, 10, 100)."
        )
    return numbers


def _evaluate(
    truth: np.ndarray,
    detections: np.ndarray,
    kind: str,
    classes: Sequence[str],
    *,
    max_detections: Sequence[int],
) -> dict[str, float]:
    """The COCO scores, of all classes and of each; NaN where COCO has -1."""
    evaluation = pycocotools("cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        true, found = (_coco(x, kind, len(classes)) for x in (truth, detections))
        coco = evaluation.COCOeval(true, found, _KINDS[kind])
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
