"""Pixel-wise AUC-ROC and average precision of each class, by binned scores."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float

from segjax.errors import UserError
from segjax.metrics import common
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import add_wrong, check_wrong, summed_wrong
from segjax.ops import checks
from segjax.typing import Array, Batch, Labels, Logits, MetricFn, Valid


def log_odds(logits: Logits) -> Float[Array, "b h w c"]:
    """Computes log(p / (1 - p)) of softmax probabilities p, accurate near 0 and 1.

    Args:
        logits: [B, H, W, C], C at least 2.
    """
    logits = jnp.asarray(logits, jnp.promote_types(logits.dtype, jnp.float32))
    top = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1], dtype=bool)
    rest = jax.nn.logsumexp(jnp.where(top, -jnp.inf, logits), -1, keepdims=True)
    # Only the largest p can be above 1/2, where 1 - p loses digits.
    log_p = jnp.minimum(jax.nn.log_softmax(logits), np.log(0.5))
    return jnp.where(top, logits - rest, log_p - jnp.log1p(-jnp.exp(log_p)))


@flax.struct.dataclass
class Ranking:
    """Histograms of the log-odds of each class, for its own and for other pixels.

    Attributes:
        histogram: [C, 2, bins]; `histogram[c, 1]` counts the pixels of class c. int32
            on the device, int64 once merged, so that merging is exact.
        classes: C names.
        wrong: Pixels without a meaning, by name; see `common.wrong_pixels`.
    """

    histogram: Any
    classes: tuple[str, ...] = flax.struct.field(pytree_node=False)
    wrong: Any = flax.struct.field(default_factory=dict)

    @classmethod
    def from_batch(
        cls,
        logits: Logits,
        labels: Labels,
        valid: Valid,
        *,
        classes: tuple[str, ...],
        num_bins: int = 1024,
        limit: float = 16.0,
    ) -> "Ranking":
        """Counts one batch on the device.

        Args:
            logits: [B, H, W, C], C at least 2.
            labels: [B, H, W] class ids in [0, C); ignored where not valid.
            valid: [B, H, W] True where a pixel is evaluated.
            classes: C names.
            num_bins: Bins of equal width in log-odds.
            limit: The bins cover -limit to limit; values outside fall in the outermost
                bins. 16 is a probability of 1e-7.
        """
        checks.whole_number("ranking", "num_bins", num_bins, least=1)
        checks.number("ranking", "limit", limit, least=0, above=True)
        checks.shapes(
            logits=(logits, "B H W C"), labels=(labels, "B H W"), valid=(valid, "B H W")
        )
        num_classes = len(classes)
        valid = checks.as_mask("valid", valid)
        labels = checks.as_class_ids(
            "labels", labels, num_classes=num_classes, valid=valid
        )
        place = (log_odds(logits) + limit) * (num_bins / (2 * limit))
        place = jnp.clip(place, 0, num_bins - 1).astype(jnp.int32)
        c = jnp.arange(num_classes)[None, None, None]
        cell = (2 * c + (labels[..., None] == c)) * num_bins + place
        spare = 2 * num_classes * num_bins
        cell = jnp.where(valid[..., None], cell, spare)
        histogram = jnp.bincount(cell.ravel(), length=spare + 1)[:-1]
        return cls(
            histogram.reshape(num_classes, 2, num_bins).astype(jnp.int32), classes
        )

    def merge(self, other: "Ranking") -> "Ranking":
        """Adds two histograms on the host, in int64.

        Raises:
            ValueError: If classes or bins differ.
        """
        a, b = (
            np.asarray(self.histogram, np.int64),
            np.asarray(other.histogram, np.int64),
        )
        if self.classes != other.classes or a.shape != b.shape:
            raise UserError(
                f"merge needs the same classes and bins, got {self.classes} in "
                f"{a.shape[-1]} and {other.classes} in {b.shape[-1]}. Evaluate both "
                f"with the same options."
            )
        return Ranking(a + b, self.classes, add_wrong(self.wrong, other.wrong))

    def compute(self) -> dict[str, float]:
        """Computes scores in [0, 1] over all pixels.

        Returns:
            `auc_roc/<name>`: the fraction of (pixel of the class, other pixel) pairs
            that the log-odds rank correctly; a pair in the same bin counts half. NaN if
            truth has no pixel of the class, or no other pixel.
            `pixel_average_precision/<name>`: mean over the pixels of the class of the
            precision at their score. Within a bin, the pixels of the class are taken to
            be evenly spaced among the others, since ties would bias the score
            downwards. NaN if truth has no pixel of the class.
            `mean_auc_roc`, `mean_pixel_average_precision`: over classes with a score.
        """
        values = {
            "auc_roc": [_auc(n, p) for n, p in self._falling()],
            "pixel_average_precision": [_ap(n, p)[1] for n, p in self._falling()],
        }
        return check_wrong(self._named(values), self.wrong)

    def bin_error(self) -> dict[str, float]:
        """Computes upper bounds on the error due to binning, by the keys of `compute`.

        The bound is the largest change that any order of the pixels within their bins
        can make. Means of the bounds are bounds of the means.
        """
        half = [ratio((n * p).sum() / 2, n.sum() * p.sum()) for n, p in self._falling()]
        three = [_ap(n, p) for n, p in self._falling()]
        ap = [max(best - value, value - worst) for worst, value, best in three]
        return self._named({"auc_roc": half, "pixel_average_precision": ap})

    def _falling(self):
        """(other pixels, pixels of the class) by class, from the highest bin down."""
        histogram = np.asarray(self.histogram, np.float64)[..., ::-1]
        return [(n, p) for n, p in histogram]

    def _named(self, values) -> dict[str, float]:
        scores = {f"mean_{k}": nanmean(v) for k, v in values.items()}
        for key, row in values.items():
            for name, value in zip(self.classes, row, strict=True):
                scores[f"{key}/{name}"] = float(value)
        return scores


def _auc(negative: np.ndarray, positive: np.ndarray) -> float:
    below = negative.sum() - np.cumsum(negative)
    right = (positive * (below + negative / 2)).sum()
    return float(ratio(right, negative.sum() * positive.sum()))


def _ap(negative: np.ndarray, positive: np.ndarray) -> tuple[float, float, float]:
    """Average precision over orders within bins: smallest, evenly mixed, largest."""
    hits, misses = np.cumsum(positive), np.cumsum(negative)
    before = misses - negative
    none, even = np.zeros_like(hits), ratio(negative, positive)
    sums = (
        _sum_of_precisions(hits - positive, positive, misses, none),
        _sum_of_precisions(hits - positive, positive, before - even / 2, even),
        _sum_of_precisions(hits - positive, positive, before, none),
    )
    worst, value, best = (float(ratio(x.sum(), positive.sum())) for x in sums)
    return worst, value, best


def _sum_of_precisions(hits, more, misses, rate) -> np.ndarray:
    """Sum over k = 1..more of (hits + k) / (hits + k + misses + rate k), by bin."""
    # With s = 1 + rate and b = (hits + misses) / s, this is
    # more / s + (hits - b) / s * sum(1 / (b + k)), and the last sum has a closed form.
    s = 1 + rate
    b = (hits + misses) / s
    psi = scipy.special.digamma
    total = more / s + (hits - b) / s * (psi(b + more + 1) - psi(b + 1))
    return np.where(more > 0, total, 0.0)


def ranking(
    classes: Sequence[str], *, num_bins: int = 1024, limit: float = 16.0
) -> MetricFn:
    """Builds AUC-ROC and average precision over pixels from one logit map per image.

    Args:
        classes: C distinct names, one for each channel of the logits.
        num_bins: Bins of equal width in log-odds.
        limit: The bins cover -limit to limit.

    Returns:
        `(logits, batch) -> Ranking`, to be traced inside the evaluation step.

    Raises:
        ValueError: As for `semantic`, and if there are fewer than two classes.
    """
    classes = common.check_distinct(classes)
    if len(classes) < 2:
        raise UserError(
            f"ranking needs two classes or more, got {len(classes)}. Add a background."
        )

    def metric(logits: Logits, batch: Batch) -> Ranking:
        labels, valid, batch = common.masked_labels(logits, batch, classes=classes)
        made = Ranking.from_batch(
            logits, labels, valid, classes=classes, num_bins=num_bins, limit=limit
        )
        return dataclasses.replace(made, wrong=summed_wrong(batch))

    return metric
