"""Boundary IoU: overlap of the bands along the outlines."""

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics import common
from segjax.metrics.common import Masks
from segjax.metrics.reduce import nanmean, mean_over_classes, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid


def mask_to_boundary(mask: Masks, *, width: int) -> Masks:
    """True pixels at most `width` rows and columns from outside the mask.

    Equals the mask less `width` erosions by a 3x3 square; outside the image is False.

    Args:
        mask: [..., H, W].
        width: In pixels, at least 1.
    """
    mask = jnp.asarray(mask) != 0
    inner = mask
    for axis in (-2, -1):
        pad = [(0, 0)] * mask.ndim
        pad[axis] = (width, width)
        window = [1] * mask.ndim
        window[axis] = 2 * width + 1
        inner = jax.lax.reduce_window(
            jnp.pad(inner, pad),
            np.array(True),
            jax.lax.bitwise_and,
            window,
            [1] * mask.ndim,
            "VALID",
        )
    return mask & ~inner


@flax.struct.dataclass
class BoundaryIoU(RowMetric):
    """Overlap and union of the bands of each class in each image, int32.

    `rows.values` has `intersection` and `union`, each [N, K].

    Attributes:
        classes: K names, those scored.
    """

    classes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def from_batch(
        cls,
        predicted: Labels,
        labels: Labels,
        valid: Valid,
        batch: Batch,
        *,
        classes: Sequence[tuple[int, str]],
        width: int,
    ) -> "BoundaryIoU":
        """Counts one batch on the device.

        Args:
            predicted: [B, H, W] class ids.
            labels: [B, H, W] class ids; ignored where not valid.
            valid: [B, H, W] True where a pixel is evaluated; others are background on both
                sides, as what lies outside the image is.
            batch: Has `index` and `weight`, both [B].
            classes: (id, name) of those to score.
            width: Of the band, in pixels.
        """
        intersection, union = [], []
        for c, _ in classes:
            a = mask_to_boundary((predicted == c) & valid, width=width)
            b = mask_to_boundary((labels == c) & valid, width=width)
            intersection.append(jnp.sum(a & b, axis=(1, 2)))
            union.append(jnp.sum(a | b, axis=(1, 2)))
        overlap = {"intersection": jnp.stack(intersection, -1), "union": jnp.stack(union, -1)}
        return cls(Rows.from_batch(overlap, batch), tuple(name for _, name in classes))

    def compute(self) -> dict[str, float]:
        """Overlap over union in [0, 1].

        Returns:
            `boundary_iou/<name>` and `mean_boundary_iou`: over all pixels.
            `boundary_iou_per_image/<name>` and `mean_boundary_iou_per_image`: means
            over images.
            A class seen on neither side has no score (NaN) and is left out of means;
            one seen on one side only scores 0.
        """
        rows = self.rows.without_padding().values
        iou = ratio(*(rows[k].sum(0, dtype=np.int64) for k in ("intersection", "union")))
        scores = {"mean_boundary_iou": nanmean(iou)}
        for name, value in zip(self.classes, iou, strict=True):
            scores[f"boundary_iou/{name}"] = float(value)
        return scores | {k: nanmean(v) for k, v in self.per_image().items()}

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        rows = self.rows.without_padding().values
        iou = ratio(rows["intersection"], rows["union"])
        scores = {"mean_boundary_iou_per_image": mean_over_classes(iou)}
        for i, name in enumerate(self.classes):
            scores[f"boundary_iou_per_image/{name}"] = iou[:, i]
        return scores


def boundary_iou(
    classes: Sequence[str], *, dilation_ratio: float = 0.02, ignore_background: bool = True
) -> MetricFn:
    """Boundary IoU of each class from one logit map per image, on the device.

    Args:
        classes: C distinct names, one for each channel of the logits.
        dilation_ratio: The band's width as a share of the diagonal of the logits' [H, W],
            padding included; rounded to pixels, at least 1.
        ignore_background: Whether class 0 is a background, which is not scored.

    Returns:
        `(logits, batch) -> BoundaryIoU`.

    Raises:
        ValueError: As `semantic`; if no class is left to score.

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, arXiv:2103.16562, which the authors'
        code computes for each object; here a class of an image is one object.
    """
    classes = common.check_distinct(classes)
    kept = common.scored_classes(classes, ignore_background=ignore_background)

    def metric(logits: Logits, batch: Batch) -> BoundaryIoU:
        predicted, labels, valid = common.predicted_and_masked_labels(logits, batch, classes=classes)
        width = max(1, round(dilation_ratio * math.hypot(*valid.shape[1:])))
        return BoundaryIoU.from_batch(
            predicted, labels, valid, batch, classes=kept, width=width
        )

    return metric
