"""COCO average precision for boxes and masks, computed by pycocotools."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import numpy as np

from segjax.errors import UserError
from segjax.metrics.boundary_iou import mask_to_boundary
from segjax.metrics.coco_evaluation import evaluate, pycocotools
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch


@flax.struct.dataclass
class AveragePrecision(RowMetric):
    """Detections and true objects of each image, collected for pycocotools.

    `rows.values` has `truth` and `detections`, each [N] lists of COCO annotations;
    masks are run-length encoded.

    Attributes:
        classes: K names; class 1 is the first, 0 is background and not scored.
        iou_types: What is scored: "box", "mask" if there are masks, "boundary" if asked
            for.
        max_detections: Numbers of detections per image for which recall is computed;
            the last, COCO's 100, is for average precision too.

    Reference:
        Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312, as implemented in
        pycocotools. Boundary AP: Cheng et al., Boundary IoU, CVPR 2021,
        arXiv:2103.16562, section 5, as in the authors' code.
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
        boundary_width: int | None = None,
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
            boundary_width: Scores boundaries too, of this width in pixels; see
                `mask_to_boundary`. None: it does not.

        Raises:
            ValueError: If only one of detections and truth has masks, or neither and
                boundary_width is given, or max_detections are not ascending whole
                numbers.
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
        if boundary_width is not None and not all(masks):
            raise UserError(
                "Boundary average precision needs masks, got boxes only. Leave "
                "boundary_width out."
            )
        # Padding rows are left out before masks are encoded.
        kept = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        found = [
            _objects([_annotations(side, i, boundary_width) for i in kept.tolist()])
            for side in sides
        ]
        rows = Rows(
            {"detections": found[0], "truth": found[1]},
            np.asarray(batch["index"])[kept],
            np.asarray(batch["weight"])[kept],
        )
        iou_types = ("box", "mask") if masks[0] else ("box",)
        iou_types += ("boundary",) if boundary_width is not None else ()
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
            on. `boundary_ap` and so on, if boundaries are scored: the IoU of two
            objects is the smaller one of their masks' and their boundaries'.
            As in COCO, a class without true objects has no score (NaN) and is left out
            of means, even if it was detected; a class with true objects but no
            detections scores 0. Images without true objects and detections have no
            effect.
        """
        rows = self.rows.without_padding().values
        scores: dict[str, float] = {}
        for kind in self.iou_types:
            found = evaluate(
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


def _annotations(
    side: Mapping[str, np.ndarray], image: int, boundary_width: int | None
) -> list[dict[str, Any]]:
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
            if boundary_width is not None:
                one["boundary"] = _boundary(mask, boundary_width)
        if "scores" in side:
            one["score"] = float(side["scores"][image, n])
        else:
            crowd = side["crowd"][image, n] if "crowd" in side else False
            # COCO takes the mask's area of true objects for boxes too.
            area = one["areas"].get("mask", one["areas"]["box"])
            area = float(side["area"][image, n]) if "area" in side else area
            one |= {"iscrowd": int(crowd), "areas": {"box": area, "mask": area}}
        one["areas"]["boundary"] = one["areas"].get("mask")
        found.append(one)
    return found


def _boundary(mask: np.ndarray, width: int) -> dict[str, Any]:
    """The boundary of a mask [H, W], run-length encoded."""
    band = np.asarray(mask_to_boundary(mask > 0, width=width), np.uint8)
    return pycocotools("mask").encode(np.asfortranarray(band))


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
