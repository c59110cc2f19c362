"""Confusion matrix of pixels, and the scores computed from it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.metrics import common, overlap
from segjax.metrics.reduce import nanmean
from segjax.metrics.rows import add_wrong, check_wrong, summed_wrong
from segjax.ops import checks
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid


@flax.struct.dataclass
class Confusion:
    """Confusion matrix of pixels over a data set.

    Attributes:
        matrix: [C, C]; `matrix[i, j]` is truth i predicted as j. int32 on the
            device, for one batch of under 2**31 pixels; int64 once merged.
        classes: C names, the keys of the per-class scores.
        wrong: Pixels without a meaning, by name; see `common.wrong_pixels`.
    """

    matrix: Any
    classes: tuple[str, ...] = flax.struct.field(pytree_node=False)
    wrong: Any = flax.struct.field(default_factory=dict)

    @classmethod
    def from_batch(
        cls,
        predicted: Labels,
        labels: Labels,
        valid: Valid,
        *,
        classes: tuple[str, ...],
    ) -> "Confusion":
        """Counts one batch on the device.

        Args:
            predicted: [B, H, W] class ids in [0, C).
            labels: [B, H, W] class ids in [0, C); ignored where not valid.
            valid: [B, H, W] True where a pixel is evaluated.
            classes: C names.

        Returns:
            Exact counts; all 0 without valid pixels.

        Raises:
            ValueError: If an id at a valid pixel is not in [0, C): here outside `jit`,
                else from `compute`, for what was counted.
        """
        checks.shapes(
            predicted=(predicted, "B H W"),
            labels=(labels, "B H W"),
            valid=(valid, "B H W"),
        )
        num_classes = len(classes)
        valid = checks.as_mask("valid", valid)
        # In 32 bits, because the product overflows uint8.
        predicted, labels = (
            checks.as_class_ids(name, ids, num_classes=num_classes, valid=valid)
            for name, ids in (("predicted", predicted), ("labels", labels))
        )
        outside = [(x < 0) | (x >= num_classes) for x in (predicted, labels)]
        outside = (outside[0] | outside[1]) & valid
        cell = labels * num_classes + predicted
        # Invalid: one spare bin.
        cell = jnp.where(valid & ~outside, cell, num_classes**2)
        # Faster than a product of one-hots; see docs/speed.md.
        matrix = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)[:-1]
        matrix = matrix.reshape(num_classes, num_classes).astype(jnp.int32)
        return cls(matrix, classes, {"labels": jnp.sum(outside, dtype=jnp.int32)})

    def merge(self, other: "Confusion") -> "Confusion":
        """Adds two matrices on the host, in int64.

        Raises:
            ValueError: If the classes differ.
        """
        if self.classes != other.classes:
            raise UserError(
                f"merge needs metrics of the same classes, got {self.classes} and "
                f"{other.classes}. Evaluate both with the same names."
            )
        matrix = np.asarray(self.matrix, np.int64) + np.asarray(other.matrix, np.int64)
        return Confusion(matrix, self.classes, add_wrong(self.wrong, other.wrong))

    def compute(self) -> dict[str, float]:
        """Computes scores over all valid pixels of the data set.

        A class absent from truth and prediction has no score (NaN) and is left out of
        means; one present in only one of them scores 0 in IoU, Dice, precision and
        recall.

        Returns:
            `mean_iou`, `mean_dice`, `mean_precision`, `mean_recall`,
            `mean_specificity`, `mean_binary_accuracy`, `mean_volume_similarity`: over
            classes in truth or prediction, in [0, 1]; `mean_matthews`, in [-1, 1].
            `mean_accuracy`: recall, over classes in truth.
            `pixel_accuracy`: over pixels.
            `kappa`: Cohen's, in [-1, 1]. `matthews`: Matthews' correlation of all
            classes, in [-1, 1].
            `frequency_weighted_iou`: over classes, weighted by frequency in truth.
            `iou/<name>`, and `dice`, `precision`, `recall`, `specificity`,
            `binary_accuracy`, `matthews` and `volume_similarity` likewise: of one class
            against the rest; see `overlap.class_scores`.
            All are NaN without valid pixels.
        """
        matrix = np.asarray(self.matrix, np.float64)
        sums = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        scores = {k: float(v) for k, v in overlap.image_scores(*sums).items()}
        for name, values in overlap.class_scores(*sums).items():
            for label, value in zip(self.classes, values, strict=True):
                scores[f"{name}/{label}"] = float(value)
        return check_wrong(scores, self.wrong)


def f_beta(scores: dict[str, float], *, beta: float) -> dict[str, float]:
    """Computes F-beta from the precision and recall of scores.

        (1 + beta**2) * precision * recall / (beta**2 * precision + recall)

    Args:
        scores: Of `Confusion.compute` or `ImageConfusion.compute`, with keys that have
            `precision` and `recall`.
        beta: Weight of recall against precision, above 0; 1 is Dice.

    Returns:
        `f<beta>/<name>` for each `precision/<name>`, such as `f2/cat`, and
        `mean_f<beta>`, their mean; 0 where precision and recall are 0, NaN where they
        are NaN.

    Raises:
        ValueError: If beta is not above 0, or there is no precision in the scores.
    """
    checks.number("f_beta", "beta", beta, least=0, above=True)
    name, found = f"f{beta:g}", {}
    for key, precision in scores.items():
        score, _, label = key.partition("/")
        if score == "precision":
            recall = scores[f"recall/{label}"]
            weighted = beta**2 * precision + recall
            part = (1 + beta**2) * precision * recall
            found[f"{name}/{label}"] = part / weighted if weighted else 0.0
    if not found:
        raise UserError(
            f"f_beta needs scores with precision/<class>, got {', '.join(scores)}. "
            f"Give it those of metrics.semantic."
        )
    return {f"mean_{name}": nanmean(list(found.values())), **found}


def semantic(classes: Sequence[str]) -> MetricFn:
    """Builds the scores of a confusion matrix from one logit map per image.

    The predicted class is the largest logit. Pixels count where `valid` is True, in
    examples with a `weight` above 0.

    Args:
        classes: C distinct names, one for each channel of the logits.

    Returns:
        `(logits, batch) -> Confusion`, to be traced inside the evaluation step.

    Raises:
        ValueError: If a name is given twice; from the metric, if the logits do not have
            C channels or differ in size from the labels.
    """
    classes = common.check_distinct(classes)

    def metric(logits: Logits, batch: Batch) -> Confusion:
        predicted, labels, valid, batch = common.predicted_and_masked_labels(
            logits, batch, classes=classes
        )
        made = Confusion.from_batch(predicted, labels, valid, classes=classes)
        return dataclasses.replace(made, wrong=summed_wrong(batch))

    return metric
