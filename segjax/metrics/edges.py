"""F-score of thin edges, by the best threshold of the data set and of each image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph
from scipy.spatial import KDTree

from segjax import optional
from segjax.errors import UserError
from segjax.metrics import common
from segjax.metrics.combine import on_host
from segjax.metrics.common import Masks
from segjax.metrics.reduce import nanmean, ratio
from segjax.metrics.rows import WRONG, RowMetric, Rows
from segjax.ops import checks
from segjax.typing import Batch, Logits, MetricFn


def match_edges(predicted: Masks, truth: Masks, *, max_distance: float) -> int:
    """Counts the pixels of two edges that can be matched one to one, on the host.

    Args:
        predicted: [H, W] True, or not 0, on the edge.
        truth: [H, W] likewise.
        max_distance: Largest distance of a pair, between pixel centers, in pixels.

    Returns:
        The largest possible number of pairs.
    """
    checks.shapes(predicted=(predicted, "H W"), truth=(truth, "H W"))
    sides = (("predicted", predicted), ("truth", truth))
    a, b = (np.argwhere(checks.as_mask(name, mask)) for name, mask in sides)
    if not len(a) or not len(b):
        return 0
    # The distance is met exactly, in spite of the root's rounding.
    limit = max_distance * (1 + 1e-9)
    near = KDTree(a).sparse_distance_matrix(KDTree(b), limit, output_type="ndarray")
    pairs = np.ones(len(near), np.int8), (near["i"], near["j"])
    graph = scipy.sparse.csr_array(pairs, shape=(len(a), len(b)))
    matched = scipy.sparse.csgraph.maximum_bipartite_matching(graph)
    return int((matched >= 0).sum())


@flax.struct.dataclass
class EdgeScores(RowMetric):
    """Pixels of predicted and true edges, and matched ones, by image and threshold.

    `rows.values` has `matched` and `predicted`, int64 [N, T], and `truth`, [N].

    Attributes:
        thresholds: T probabilities.
    """

    thresholds: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())

    def compute(self) -> dict[str, float]:
        """Computes F-scores in [0, 1]: the harmonic mean of precision and recall.

        Returns:
            `edge_ods`: at the threshold that is best over the data set, and that
            threshold, `edge_ods_threshold`.
            `edge_ois`: each image at its own best threshold, pixels summed over images.
            `edge_f_per_image`: mean over images of the best F of each.
            NaN if there is an edge in neither truth nor prediction; 0 if in one.
        """
        rows = self.rows.without_padding().values
        sums = {k: v.sum(0, dtype=np.int64) for k, v in rows.items()}
        whole, own = _f_scores(**sums), _best(_f_of_images(rows))
        images, best = np.arange(len(own)), int(_best(whole))
        at_own = {k: rows[k][images, own].sum() for k in ("matched", "predicted")}
        ods = _largest(whole)
        threshold = math.nan if np.isnan(ods) else self.thresholds[best]
        scores = {
            "edge_ods": float(ods),
            "edge_ods_threshold": threshold,
            "edge_ois": float(_f_scores(**at_own, truth=sums["truth"])),
        }
        means = {k: nanmean(v) for k, v in self.per_image().items()}
        return self.checked(scores | means)

    def per_image(self) -> dict[str, np.ndarray]:
        """The `_per_image` score as [N] float64, images in the order of `index`."""
        found = _f_of_images(self.rows.without_padding().values)
        return {"edge_f_per_image": _largest(found)}


def _largest(scores: np.ndarray) -> np.ndarray:
    """The largest of [..., T] that is a number; NaN if none is."""
    best = np.max(np.nan_to_num(scores, nan=-1.0), axis=-1, initial=-1.0)
    return np.where(best < 0, np.nan, best)


def _best(scores: np.ndarray) -> np.ndarray:
    """Where the largest of [..., T] is, the last one, which has the least edge.

    NaN, of an image without an edge in either, is better than an edge that is made up.
    """
    last = scores.shape[-1] - 1
    backwards = np.nan_to_num(scores, nan=2.0)[..., ::-1]
    return np.asarray(last - np.argmax(backwards, axis=-1))


def _f_of_images(rows: Mapping[str, Any]) -> np.ndarray:
    """[N, T]."""
    return _f_scores(rows["matched"], rows["predicted"], rows["truth"][:, None])


def _f_scores(matched: Any, predicted: Any, truth: Any) -> np.ndarray:
    """2 P R / (P + R) with P = matched / predicted, R = matched / truth."""
    return ratio(2 * np.asarray(matched, np.float64), predicted + truth)


def edges(
    classes: Sequence[str],
    *,
    edge: int = 1,
    thresholds: Sequence[float] = tuple(i / 100 for i in range(1, 100)),
    max_distance: float = 0.0075,
) -> MetricFn:
    """Builds ODS and OIS of an edge class from one logit map per image.

    The probability of the class is thinned to lines at each threshold, on the host,
    once per batch, and so is the truth. Pixels of both that are near are matched one to
    one. Invalid pixels are not edge in either.

    Args:
        classes: C distinct names, one for each channel of the logits.
        edge: The class that is scored.
        thresholds: Ascending, in (0, 1]. A pixel is edge if its probability is at least
            the threshold. BSDS has 99; each takes as long as the first.
        max_distance: Largest distance of matched pixels, as a fraction of the diagonal
            of the logits' [H, W].

    Returns:
        `(logits, batch) -> OnHost` of `EdgeScores`.

    Raises:
        ValueError: As for `semantic`, if a number is out of range, or scikit-image is
            not installed.

    Reference:
        Martin et al., Learning to detect natural image boundaries using local
        brightness, color, and texture cues, 2004, section 4, and the BSDS500
        benchmark. That benchmark suppresses pixels that are no maximum before, and has
        several truths per image. It minimizes distances among the matchings; here only
        their number counts.
    """
    classes = common.check_distinct(classes)
    for value in thresholds:
        checks.number("edges", "thresholds", value, least=0, most=1, above=True)
    checks.number("edges", "max_distance", max_distance, least=0)
    if not thresholds:
        raise UserError("edges needs thresholds, got none. BSDS has 0.01 to 0.99.")
    thin = _morphology().thin

    def gather(logits: Logits, batch: Batch) -> Mapping[str, Any]:
        _, valid, batch = common.masked_labels(logits, batch, classes=classes)
        probs = jax.nn.softmax(logits.astype(jnp.float32))[..., edge]
        return {"probs": jnp.where(valid, probs, -1), WRONG: batch[WRONG]}

    def make(arrays: Mapping[str, Any], batch: Batch) -> EdgeScores:
        kept = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        rows: dict[str, Any] = {
            k: np.asarray(batch[k])[kept] for k in ("index", "weight")
        }
        rows[WRONG] = {k: np.asarray(v)[kept] for k, v in arrays[WRONG].items()}
        valid = np.asarray(checks.as_mask("valid", batch["valid"]))[kept]
        truth = (np.asarray(batch["label"])[kept] == edge) & valid
        limit = max_distance * math.hypot(*valid.shape[1:])
        values = {
            "matched": np.zeros((len(kept), len(thresholds)), np.int64),
            "predicted": np.zeros((len(kept), len(thresholds)), np.int64),
            "truth": np.zeros(len(kept), np.int64),
        }
        for i, probs in enumerate(np.asarray(arrays["probs"])[kept]):
            line = thin(truth[i])
            values["truth"][i] = line.sum()
            for k, threshold in enumerate(thresholds):
                found = thin(probs >= threshold)
                values["predicted"][i, k] = found.sum()
                values["matched"][i, k] = match_edges(found, line, max_distance=limit)
        return EdgeScores(Rows.from_batch(values, rows), tuple(thresholds))

    return on_host(gather, make)


def _morphology() -> Any:
    return optional.require(
        "skimage.morphology",
        extra="skeleton",
        purpose="the thinning of edges",
        package="scikit-image",
    )
