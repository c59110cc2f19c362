"""Rand score of the ISBI 2012 challenge."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics.combine import on_host
from segjax.metrics.common import check_one_size, wrong_pixels
from segjax.metrics.contingency import Ids, connected_components, contingency
from segjax.metrics.reduce import nanmean
from segjax.metrics.rows import WRONG, PerImage, RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Logits, MetricFn

_SCORES = ("v_rand", "v_rand_split", "v_rand_merge")


def v_rand(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray
) -> dict[str, float]:
    """Computes the foreground-restricted Rand scores of one image, on the host.

    Over the pixels of true objects, with p_ij the fraction of pixels in true object i
    and predicted object j, t_i the fraction in true object i and s_j the fraction in
    predicted object j,

        split = sum p_ij**2 / sum t_i**2
        merge = sum p_ij**2 / sum s_j**2
        v_rand = 2 * sum p_ij**2 / (sum t_i**2 + sum s_j**2)

    Each pixel without a predicted object is an object of its own.

    Args:
        predicted: [H, W] ids, 0 for none.
        truth: [H, W] ids, 0 for none; pixels without an object are left out.
        valid: [H, W] True where a pixel is evaluated.

    Returns:
        `v_rand`, `v_rand_split`, `v_rand_merge`, each in (0, 1]; NaN without true
        objects. Without predicted objects, the formula holds with each pixel on its
        own.

    Reference:
        Arganda-Carreras et al., Crowdsourcing the creation of image segmentation
        algorithms for connectomics, Frontiers in Neuroanatomy 9:142, 2015. The
        challenge uses the best threshold of the probability map, as
        `best_threshold_rand` does; it also thins boundaries, which this does not.
    """
    valid = np.asarray(checks.as_mask("valid", valid))
    table = contingency(predicted, truth, valid & (np.asarray(truth) != 0))
    if not len(table.pixels):
        return dict.fromkeys(_SCORES, float("nan"))
    joined = table.predicted > 0
    alone = int(table.pixels[~joined].sum())  # Objects of one pixel: 1**2 each.

    def squares(sizes):
        return float(np.sum(np.array(list(sizes), np.float64) ** 2))

    both = squares(table.pixels[joined]) + alone
    t = squares(table.truth_sizes.values())
    s = squares(table.predicted_sizes.values()) + alone
    return {
        "v_rand": 2 * both / (s + t),
        "v_rand_split": both / t,
        "v_rand_merge": both / s,
    }


def rand_scores(
    predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
) -> PerImage:
    """Computes the `v_rand` scores of the images of a batch, on the host.

    Args:
        predicted: [B, H, W] ids, 0 for none.
        truth: [B, H, W] ids, 0 for none.
        valid: [B, H, W] True where a pixel is evaluated.
        batch: Has `index` and `weight`, both [B].
    """
    images = zip(predicted, truth, valid, strict=True)
    scores = [v_rand(*image) for image in images]
    columns = {f"{k}_per_image": np.array([s[k] for s in scores]) for k in _SCORES}
    return PerImage.from_batch(columns, batch)


@flax.struct.dataclass
class RandCurve(RowMetric):
    """Rand scores of each image at several thresholds.

    `rows.values` has `v_rand`, `v_rand_split`, `v_rand_merge`, each [N, T].

    Attributes:
        thresholds: T thresholds of the foreground probability.
    """

    thresholds: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())

    def compute(self) -> dict[str, float]:
        """Computes means over images at the threshold of the largest mean `v_rand`.

        Returns:
            `best_v_rand_per_image`, with `_split` and `_merge` at the same threshold,
            and `best_v_rand_threshold`. The threshold is chosen on the scored images,
            as in the challenge, so the scores are optimistic. NaN without true objects.
        """
        rows = self.rows.without_padding().values
        means = {k: [nanmean(column) for column in rows[k].T] for k in _SCORES}
        best = int(np.argmax(np.nan_to_num(means["v_rand"], nan=-1.0)))
        known = not np.isnan(means["v_rand"][best])
        scores = {f"best_{k}_per_image": means[k][best] for k in _SCORES}
        threshold = self.thresholds[best] if known else float("nan")
        return self.checked(scores | {"best_v_rand_threshold": threshold})


def best_threshold_rand(
    *,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    foreground: int = 1,
    connectivity: int = 1,
) -> MetricFn:
    """Builds the Rand scores at the best threshold of the foreground probability.

    Args:
        thresholds: Thresholds of the softmax probability; objects are where it is
            above.
        foreground: The class whose connected components are objects, also in truth.
        connectivity: 1 for neighbors that share a side, 2 for corners as well.

    Returns:
        `(logits, batch) -> OnHost` of a `RandCurve`; see `v_rand`.
    """
    thresholds = tuple(thresholds)

    def gather(logits: Logits, batch: Batch) -> Mapping[str, Any]:
        check_one_size(logits, batch["label"])
        probs = jax.nn.softmax(logits)[..., foreground]
        valid = checks.as_mask("valid", batch["valid"])
        return {
            "above": jnp.stack([probs > t for t in thresholds], axis=1),
            WRONG: wrong_pixels(logits, None, valid),
        }

    def make(arrays: Mapping[str, Any], batch: Batch) -> RandCurve:
        valid = np.asarray(checks.as_mask("valid", batch["valid"]))
        truth = (np.asarray(batch["label"]) == foreground) & valid
        truth = connected_components(truth, connectivity=connectivity)
        columns = []
        for mask in np.moveaxis(np.asarray(arrays["above"]), 1, 0):
            predicted = connected_components(mask & valid, connectivity=connectivity)
            images = zip(predicted, truth, valid, strict=True)
            columns.append([v_rand(*image) for image in images])
        values = {k: np.array([[s[k] for s in c] for c in columns]).T for k in _SCORES}
        batch = {**batch, WRONG: arrays[WRONG]}
        return RandCurve(Rows.from_batch(values, batch), thresholds)

    return on_host(gather, make)
