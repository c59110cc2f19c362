"""Calibration of probabilities: calibration errors, Brier score, likelihood."""

import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.metrics import common
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Labels, Logits, MetricFn, Valid

_UNIT = 2**16 - 1
_MAX_PIXELS = 2**23
"""Sums of bytes over this many pixels fit in int32."""


@flax.struct.dataclass
class Calibration(RowMetric):
    """Sums over the pixels of each image, in integers so that they are exact.

    Values in [0, 1] are rounded to multiples of 1 / 65535, and their high and low bytes
    are summed separately. `rows.values` has `count`, `correct`, `confidence_high`,
    `confidence_low`, each [N, bins], and `brier_high`, `brier_low`, each [N]; and `nll`
    [N] float32.
    """

    @classmethod
    def from_batch(
        cls,
        logits: Logits,
        labels: Labels,
        valid: Valid,
        batch: Batch,
        *,
        num_bins: int = 15,
    ) -> "Calibration":
        """Computes the sums of one batch on the device.

        Args:
            logits: [B, H, W, C].
            labels: [B, H, W] class ids in [0, C); ignored where not valid.
            valid: [B, H, W] True where a pixel is evaluated.
            batch: Has `index` and `weight`, both [B].
            num_bins: Number of confidence bins, of equal width in (0, 1].

        Raises:
            ValueError: If an image has more than 2**23 pixels.
        """
        num_classes = logits.shape[-1]
        check_num_pixels(logits)
        checks.whole_number("calibration", "num_bins", num_bins, least=1)
        checks.shapes(
            logits=(logits, "B H W C"), labels=(labels, "B H W"), valid=(valid, "B H W")
        )
        valid = checks.as_mask("valid", valid)
        labels = checks.as_class_ids(
            "labels", labels, num_classes=num_classes, valid=valid
        )
        probs = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
        target = jax.nn.one_hot(jnp.where(valid, labels, 0), num_classes)
        confidence = jnp.max(probs, axis=-1)
        correct = jnp.argmax(probs, axis=-1) == labels
        bins = jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1
        bins = jnp.where(valid, jnp.clip(bins, 0, num_bins - 1), num_bins)

        brier = jnp.sum((probs - target) ** 2, axis=-1) / 2
        brier_high, brier_low = (
            jnp.sum(jnp.where(valid, x, 0), axis=(1, 2)) for x in to_bytes(brier)
        )
        nll = -jnp.sum(jax.nn.log_softmax(logits), axis=-1, where=target > 0)
        sums = binned_sums(confidence, correct, bins, num_bins) | {
            "nll": jnp.sum(jnp.where(valid, nll, 0), axis=(1, 2)),
            "brier_high": brier_high,
            "brier_low": brier_low,
        }
        return cls(Rows.from_batch(sums, batch))

    def compute(self) -> dict[str, float]:
        """Computes errors over all pixels, and means over images; lower is better.

        Returns:
            `ece`: expected calibration error in [0, 1], the sum over bins of the
            fraction of pixels times |accuracy - mean confidence|, where confidence is
            the largest probability; accurate to 8e-6.
            `brier`: mean over pixels of the squared distance between probabilities
            and one-hot truth, summed over classes, in [0, 2], accurate to 2e-5.
            `mce`: maximum calibration error in [0, 1], the largest difference of
            accuracy and mean confidence of a bin that has pixels.
            `nll`: negative log-likelihood, mean over pixels of minus the logarithm of
            the label's probability; in nats, at least 0.
            `ece_per_image` and so on: means over images of the score of each image.
            NaN without valid pixels; such images are left out of means.
        """
        rows = self.rows.without_padding().values
        scores = {k: float(v) for k, v in _scores(_whole(rows)).items()}
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` scores as [N] float64, images in the order of `index`."""
        scores = _scores(self.rows.without_padding().values)
        return {f"{k}_per_image": v for k, v in scores.items()}

    def reliability_diagram(self) -> dict[str, np.ndarray]:
        """Computes the reliability diagram over all pixels.

        Returns:
            `count`, `accuracy` and `confidence`, each [bins]; the latter two are NaN
            in an empty bin.
        """
        rows = self.rows.without_padding().values
        whole = _whole(rows)
        return {
            "count": whole["count"],
            "accuracy": ratio(whole["correct"], whole["count"]),
            "confidence": ratio(of_bytes(whole, "confidence"), whole["count"]),
        }


def binned_sums(
    confidence: jax.Array, correct: jax.Array, bins: jax.Array, num_bins: int
) -> dict[str, jax.Array]:
    """Sums over the pixels of each image, by bin.

    Args:
        confidence: [B, H, W] in [0, 1].
        correct: [B, H, W] True where the prediction is right.
        bins: int32 [B, H, W]; `num_bins` for pixels that are left out.
        num_bins: N.

    Returns:
        `count`, `correct`, `confidence_high` and `confidence_low`, int32 [B, N] each.
    """
    examples, height, width = bins.shape
    where = bins.reshape(examples, height * width)
    total = jax.vmap(lambda x, b: jnp.zeros(num_bins + 1, jnp.int32).at[b].add(x))

    def per_bin(x):
        return total(x.astype(jnp.int32).reshape(where.shape), where)[:, :-1]

    high, low = to_bytes(confidence)
    return {
        "count": per_bin(jnp.ones_like(bins)),
        "correct": per_bin(correct),
        "confidence_high": per_bin(high),
        "confidence_low": per_bin(low),
    }


def check_num_pixels(logits: Logits) -> None:
    """Checks that the sums over an image fit in int32."""
    height, width = logits.shape[1:3]
    if height * width > _MAX_PIXELS:
        raise UserError(
            f"calibration needs images of at most {_MAX_PIXELS} pixels, got "
            f"{height}x{width}. Evaluate them in tiles."
        )


def to_bytes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits a 16-bit value of a number in [0, 1] into its high and low byte."""
    whole = jnp.round(jnp.clip(x, 0, 1) * _UNIT).astype(jnp.int32)
    return whole >> 8, whole & 255


def of_bytes(sums: dict[str, Any], name: str) -> Any:
    """The sum of the values whose bytes were summed separately."""
    high = np.asarray(sums[f"{name}_high"], np.int64)
    return (256 * high + np.asarray(sums[f"{name}_low"])) / _UNIT


def _whole(rows: dict[str, Any]) -> dict[str, Any]:
    """Sums over the images, which do not depend on their order."""
    nll = np.array(math.fsum(rows["nll"]))
    return {k: nll if k == "nll" else v.sum(0, dtype=np.int64) for k, v in rows.items()}


def _scores(sums: dict[str, Any]) -> dict[str, Any]:
    gaps = np.abs(sums["correct"] - of_bytes(sums, "confidence"))
    pixels = sums["count"].sum(-1)
    largest = np.nan_to_num(ratio(gaps, sums["count"])).max(-1)
    return {
        "ece": ratio(gaps.sum(-1), pixels),
        "mce": np.where(pixels > 0, largest, np.nan),
        "nll": ratio(sums["nll"], pixels),
        "brier": ratio(2 * of_bytes(sums, "brier"), pixels),
    }


def calibration(classes: Sequence[str], *, num_bins: int = 15) -> MetricFn:
    """Builds calibration error and Brier score from one logit map per image.

    Args:
        classes: C distinct names, one for each channel of the logits.
        num_bins: Number of confidence bins.

    Returns:
        `(logits, batch) -> Calibration`, to be traced inside the evaluation step.

    Raises:
        ValueError: As for `semantic`, and if an image has more than 2**23 pixels.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2,
        arXiv:1706.04599.
    """
    classes = common.check_distinct(classes)

    def metric(logits: Logits, batch: Batch) -> Calibration:
        labels, valid, batch = common.masked_labels(logits, batch, classes=classes)
        return Calibration.from_batch(logits, labels, valid, batch, num_bins=num_bins)

    return metric
