"""Calibration error in bins that have the same number of pixels."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics import common
from segjax.metrics.calibration import binned_sums, check_num_pixels, of_bytes
from segjax.metrics.ranking import log_odds
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid

_FINE_BINS = 1024
_LIMIT = 16.0


@flax.struct.dataclass
class AdaptiveCalibration(RowMetric):
    """Sums over the pixels of each image, by fine bins of the confidence's log-odds.

    `rows.values` has `count`, `correct`, `confidence_high` and `confidence_low`, as
    `Calibration`, each [N, 1024].

    Attributes:
        num_bins: Number of bins that `compute` makes of the fine ones.
    """

    num_bins: int = flax.struct.field(pytree_node=False, default=15)

    @classmethod
    def from_batch(
        cls,
        logits: Logits,
        labels: Labels,
        valid: Valid,
        batch: Batch,
        *,
        num_bins: int = 15,
    ) -> "AdaptiveCalibration":
        """Computes the sums of one batch on the device; arguments as `Calibration`."""
        check_num_pixels(logits)
        checks.whole_number("adaptive_calibration", "num_bins", num_bins, least=1)
        checks.shapes(
            logits=(logits, "B H W C"), labels=(labels, "B H W"), valid=(valid, "B H W")
        )
        valid = checks.as_mask("valid", valid)
        labels = checks.as_class_ids(
            "labels", labels, num_classes=logits.shape[-1], valid=valid
        )
        logits = checks.as_floats("logits", logits)
        confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
        odds = jnp.max(log_odds(logits), axis=-1)
        place = (odds + _LIMIT) * (_FINE_BINS / (2 * _LIMIT))
        place = jnp.clip(place, 0, _FINE_BINS - 1).astype(jnp.int32)
        bins = jnp.where(valid, place, _FINE_BINS)
        correct = jnp.argmax(logits, axis=-1) == labels
        sums = binned_sums(confidence, correct, bins, _FINE_BINS)
        return cls(Rows.from_batch(sums, batch), num_bins)

    def compute(self) -> dict[str, float]:
        """Computes errors in [0, 1] over all pixels, and the mean over images.

        Returns:
            `adaptive_ece`: the mean over the bins of |accuracy - mean confidence|,
            where bins are intervals of confidence with the same number of pixels. The
            pixels of a fine bin (1/32 in log-odds, at most 0.008 of confidence) are
            alike, and divided in proportion where a bin ends in their middle.
            `adaptive_ece_per_image`: mean over images of that of each image. NaN
            without valid pixels.
        """
        rows = self.rows.without_padding().values
        whole = {k: v.sum(0, dtype=np.int64) for k, v in rows.items()}
        scores = {"adaptive_ece": _error(whole, self.num_bins)}
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` score as [N] float64, images in the order of `index`."""
        rows = self.rows.without_padding().values
        images = range(len(rows["count"]))
        errors = [
            _error({k: v[i] for k, v in rows.items()}, self.num_bins) for i in images
        ]
        return {"adaptive_ece_per_image": np.array(errors, np.float64)}


def _error(sums: dict[str, Any], num_bins: int) -> float:
    """Of sums [1024] over fine bins; NaN without pixels."""
    pixels = np.cumsum(np.concatenate([[0], sums["count"]]), dtype=np.float64)
    if not pixels[-1]:
        return float("nan")
    edges = np.linspace(0, pixels[-1], num_bins + 1)
    kept = np.concatenate([[True], np.diff(pixels) > 0])  # np.interp needs ascent.

    def within(values):
        total = np.cumsum(np.concatenate([[0], values]))
        return np.diff(np.interp(edges, pixels[kept], total[kept]))

    gaps = np.abs(within(sums["correct"]) - within(of_bytes(sums, "confidence")))
    return float(ratio(gaps.sum(), pixels[-1]))


def adaptive_calibration(classes: Sequence[str], *, num_bins: int = 15) -> MetricFn:
    """Builds the adaptive calibration error from one logit map per image.

    Most pixels of a segmentation are classified with a confidence near 1, in the last
    bin of `calibration`; here they are divided among nearly all bins.

    Args:
        classes: C distinct names, one for each channel of the logits; at least two.
        num_bins: Number of bins.

    Returns:
        `(logits, batch) -> AdaptiveCalibration`, to be traced inside the evaluation
        step.

    Raises:
        ValueError: As for `calibration`.

    Reference:
        Nguyen and O'Connor, Posterior calibration and exploratory analysis for natural
        language processing models, 2015, section 3, arXiv:1508.05154; for the largest
        probability, as by Nixon et al., Measuring Calibration in Deep Learning, 2019,
        arXiv:1904.01685.
    """
    classes = common.check_distinct(classes)

    def metric(logits: Logits, batch: Batch) -> AdaptiveCalibration:
        labels, valid, batch = common.masked_labels(logits, batch, classes=classes)
        return AdaptiveCalibration.from_batch(
            *(logits, labels, valid, batch), num_bins=num_bins
        )

    return metric
