"""Pixel counts of each image, for scores per image and over the data set."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics import common, overlap
from segjax.metrics.reduce import nanmean
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid


@flax.struct.dataclass
class ImageConfusion(RowMetric):
    """Intersection and sizes of each class in each image, int32.

    `rows.values` has `intersection`, `truth`, `predicted`, each [N, C].

    Attributes:
        classes: C names, the keys of the per-class scores.
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
        classes: tuple[str, ...],
    ) -> "ImageConfusion":
        """Counts one batch on the device.

        Args:
            predicted: [B, H, W] class ids in [0, C).
            labels: [B, H, W] class ids in [0, C); ignored where not valid.
            valid: [B, H, W] True where a pixel is evaluated.
            batch: Has `index` and `weight`, both [B].
            classes: C names.
        """
        checks.shapes(
            predicted=(predicted, "B H W"),
            labels=(labels, "B H W"),
            valid=(valid, "B H W"),
        )
        num_classes, (_, height, width) = len(classes), valid.shape
        valid = checks.as_mask("valid", valid)
        predicted, labels = (
            checks.as_class_ids(name, ids, num_classes=num_classes, valid=valid)
            for name, ids in (("predicted", predicted), ("labels", labels))
        )

        def count(x, where):
            x = jnp.where(where, x, num_classes).reshape(len(x), height * width)
            return jax.vmap(lambda r: jnp.bincount(r, length=num_classes + 1)[:-1])(x)

        hits = {
            "intersection": count(labels, valid & (labels == predicted)),
            "truth": count(labels, valid),
            "predicted": count(predicted, valid),
        }
        return cls(Rows.from_batch(hits, batch), classes)

    def compute(self) -> dict[str, float]:
        """Computes scores over all pixels, and means over images.

        In both, a class absent from truth and prediction has no score (NaN) and is left
        out of means; one present in only one of them scores 0.

        Returns:
            The keys of `Confusion.compute`, over all pixels; and each again with
            `_per_image`: `mean_iou_per_image` is the mean over images of the mean over
            the classes in that image, `iou_per_image/<name>` the mean over the images
            that contain the class.
        """
        rows = self.rows.without_padding().values
        one_image = {k: v.sum(axis=0, dtype=np.int64) for k, v in rows.items()}
        scores = {k: float(v) for k, v in overlap.image_scores(**one_image).items()}
        for name, values in overlap.class_scores(**one_image).items():
            for label, value in zip(self.classes, values, strict=True):
                scores[f"{name}/{label}"] = float(value)
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        rows = self.rows.without_padding().values
        scores = {f"{k}_per_image": v for k, v in overlap.image_scores(**rows).items()}
        for name, values in overlap.class_scores(**rows).items():
            for i, label in enumerate(self.classes):
                scores[f"{name}_per_image/{label}"] = values[:, i]
        return scores


def semantic_per_image(classes: Sequence[str]) -> MetricFn:
    """Builds the scores of `semantic`, and their means over images.

    Args:
        classes: C distinct names, one for each channel of the logits.

    Returns:
        `(logits, batch) -> ImageConfusion`, whose images can be resampled by
        `metric_intervals`; the batch also needs `index`.

    Raises:
        ValueError: As for `semantic`.
    """
    classes = common.check_distinct(classes)

    def metric(logits: Logits, batch: Batch) -> ImageConfusion:
        predicted, labels, valid, batch = common.predicted_and_masked_labels(
            logits, batch, classes=classes
        )
        return ImageConfusion.from_batch(
            predicted, labels, valid, batch, classes=classes
        )

    return metric
