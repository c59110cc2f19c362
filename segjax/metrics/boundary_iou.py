"""Boundary IoU: intersection over union of the bands along the boundaries."""

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics import common
from segjax.metrics.common import Masks
from segjax.metrics.reduce import mean_over_classes, nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid


def mask_to_boundary(mask: Masks, *, width: int) -> Masks:
    """Computes the inner boundary of a mask: True pixels at most `width` from outside.

    Equals the mask minus its erosion, `width` times by a 3x3 square. Pixels outside the
    image are False.

    Args:
        mask: [..., H, W].
        width: In pixels, at least 1.
    """
    checks.whole_number("mask_to_boundary", "width", width, least=1)
    mask = jnp.asarray(checks.as_mask("mask", mask))
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
    """Intersection and union of the boundary bands of each class in each image, int32.

    `rows.values` has `intersection` and `union`, each [N, K].

    Attributes:
        classes: K names of the classes that are scored.
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
            valid: [B, H, W] True where a pixel is evaluated; other pixels are
                background in labels and prediction, as are pixels outside the image.
            batch: Has `index` and `weight`, both [B].
            classes: (id, name) of the classes to score.
            width: Width of the band, in pixels.
        """
        valid = checks.as_mask("valid", valid)
        intersection, union = [], []
        for c, _ in classes:
            a = mask_to_boundary((predicted == c) & valid, width=width)
            b = mask_to_boundary((labels == c) & valid, width=width)
            intersection.append(jnp.sum(a & b, axis=(1, 2)))
            union.append(jnp.sum(a | b, axis=(1, 2)))
        overlap = {
            "intersection": jnp.stack(intersection, -1),
            "union": jnp.stack(union, -1),
        }
        return cls(Rows.from_batch(overlap, batch), tuple(name for _, name in classes))

    def compute(self) -> dict[str, float]:
        """Intersection over union in [0, 1].

        Returns:
            `boundary_iou/<name>` and `mean_boundary_iou`: over all pixels.
            `boundary_iou_per_image/<name>` and `mean_boundary_iou_per_image`: means
            over images.
            A class absent from truth and prediction has no score (NaN) and is left out
            of means; one present in only one of them scores 0.
        """
        rows = self.rows.without_padding().values
        iou = ratio(
            *(rows[k].sum(0, dtype=np.int64) for k in ("intersection", "union"))
        )
        scores = {"mean_boundary_iou": nanmean(iou)}
        for name, value in zip(self.classes, iou, strict=True):
            scores[f"boundary_iou/{name}"] = float(value)
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        rows = self.rows.without_padding().values
        iou = ratio(rows["intersection"], rows["union"])
        scores = {"mean_boundary_iou_per_image": mean_over_classes(iou)}
        for i, name in enumerate(self.classes):
            scores[f"boundary_iou_per_image/{name}"] = iou[:, i]
        return scores


def boundary_iou(
    classes: Sequence[str],
    *,
    dilation_ratio: float = 0.02,
    ignore_background: bool = True,
) -> MetricFn:
    """Builds the boundary IoU of each class from one logit map per image.

    Args:
        classes: C distinct names, one for each channel of the logits.
        dilation_ratio: Width of the band as a fraction of the diagonal of the logits'
            [H, W], including padding; rounded to pixels, at least 1.
        ignore_background: Whether class 0 is background and not scored.

    Returns:
        `(logits, batch) -> BoundaryIoU`, computed on the device.

    Raises:
        ValueError: As for `semantic`, and if there is no class to score.

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, arXiv:2103.16562. The authors' code
        computes it per object; here each class of an image is one object.
    """
    classes = common.check_distinct(classes)
    kept = common.scored_classes(classes, ignore_background=ignore_background)

    def metric(logits: Logits, batch: Batch) -> BoundaryIoU:
        predicted, labels, valid, batch = common.predicted_and_masked_labels(
            logits, batch, classes=classes
        )
        width = max(1, round(dilation_ratio * math.hypot(*valid.shape[1:])))
        return BoundaryIoU.from_batch(
            predicted, labels, valid, batch, classes=kept, width=width
        )

    return metric
