"""Calibration error of the probability of each class."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics import common
from segjax.metrics.calibration import check_num_pixels, of_bytes, to_bytes
from segjax.metrics.reduce import mean_over_classes, nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid


@flax.struct.dataclass
class ClasswiseCalibration(RowMetric):
    """Sums over the pixels of each image, by class and bin, in integers as in ECE.

    `rows.values` has `count`, `positive`, `probability_high` and `probability_low`,
    each [N, C, bins].

    Attributes:
        classes: C names.
    """

    classes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def from_batch(
        cls,
        logits: Logits,
        labels: Labels,
        valid: Valid,
        batch: Batch,
        *,
        classes: tuple[str, ...],
        num_bins: int = 15,
    ) -> "ClasswiseCalibration":
        """Computes the sums of one batch on the device; arguments as `Calibration`."""
        check_num_pixels(logits)
        checks.whole_number("classwise_calibration", "num_bins", num_bins, least=1)
        checks.shapes(
            logits=(logits, "B H W C"), labels=(labels, "B H W"), valid=(valid, "B H W")
        )
        examples, height, width, num_classes = logits.shape
        valid = checks.as_mask("valid", valid)
        labels = checks.as_class_ids(
            "labels", labels, num_classes=num_classes, valid=valid
        )
        probs = jax.nn.softmax(checks.as_floats("logits", logits))
        bins = jnp.ceil(probs * num_bins).astype(jnp.int32) - 1
        bins = jnp.clip(bins, 0, num_bins - 1)
        offsets = num_bins * np.arange(num_classes, dtype=np.int32)
        cells = bins + offsets[None, None, None, :]
        pixels = height * width * num_classes

        def total(x):
            """Sums of the valid pixels: [B, H, W, C] -> [B, C, bins]."""
            x = jnp.where(valid[..., None], x, 0).astype(jnp.int32)
            zeros = jnp.zeros(num_classes * num_bins, jnp.int32)
            sums = jax.vmap(lambda cell, x: zeros.at[cell].add(x))(
                cells.reshape(examples, pixels), x.reshape(examples, pixels)
            )
            return sums.reshape(examples, num_classes, num_bins)

        high, low = to_bytes(probs)
        sums = {
            "count": total(jnp.ones_like(cells)),
            "positive": total(jax.nn.one_hot(labels, num_classes, dtype=jnp.int32)),
            "probability_high": total(high),
            "probability_low": total(low),
        }
        return cls(Rows.from_batch(sums, batch), classes)

    def compute(self) -> dict[str, float]:
        """Computes errors in [0, 1] over all pixels, and means over images.

        Returns:
            `classwise_ece/<name>`: the sum over bins of the class's probability of the
            fraction of pixels times |frequency of the class - mean probability|;
            accurate to 8e-6. `mean_classwise_ece`: over all classes, also those without
            pixels. `mean_classwise_ece_per_image`: mean over images of that of each
            image. NaN without valid pixels.
        """
        rows = self.rows.without_padding().values
        whole = _errors({k: v.sum(0, dtype=np.int64) for k, v in rows.items()})
        scores = {"mean_classwise_ece": float(mean_over_classes(whole))}
        for name, value in zip(self.classes, whole, strict=True):
            scores[f"classwise_ece/{name}"] = float(value)
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` score as [N] float64, images in the order of `index`."""
        errors = _errors(self.rows.without_padding().values)
        return {"mean_classwise_ece_per_image": mean_over_classes(errors)}


def _errors(sums: dict[str, Any]) -> np.ndarray:
    """[..., C]; NaN without pixels."""
    gaps = np.abs(sums["positive"] - of_bytes(sums, "probability"))
    return ratio(gaps.sum(-1), sums["count"].sum(-1))


def classwise_calibration(classes: Sequence[str], *, num_bins: int = 15) -> MetricFn:
    """Builds the calibration error of each class from one logit map per image.

    Args:
        classes: C distinct names, one for each channel of the logits.
        num_bins: Number of bins of the probability, of equal width in (0, 1].

    Returns:
        `(logits, batch) -> ClasswiseCalibration`, to be traced inside the evaluation
        step.

    Raises:
        ValueError: As for `calibration`.

    Reference:
        Kull et al., Beyond temperature scaling, NeurIPS 2019, section 3,
        arXiv:1910.12656.
    """
    classes = common.check_distinct(classes)

    def metric(logits: Logits, batch: Batch) -> ClasswiseCalibration:
        labels, valid, batch = common.masked_labels(logits, batch, classes=classes)
        return ClasswiseCalibration.from_batch(
            *(logits, labels, valid, batch), classes=classes, num_bins=num_bins
        )

    return metric
