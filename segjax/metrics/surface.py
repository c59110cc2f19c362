"""Surface distances between truth and prediction, per image and class."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.metrics import common
from segjax.metrics.common import Masks
from segjax.metrics.rows import PerImage
from segjax.ops import checks
from segjax.typing import Array, Batch, Logits, MetricFn


def outline(mask: Masks) -> Masks:
    """Computes the True pixels next to a False pixel or to the image's edge.

    Equals the mask minus its erosion by the 4-neighborhood.

    Args:
        mask: [..., H, W].

    Returns:
        [..., H, W]; empty for an empty mask, the edge of the image if all pixels are
        True.
    """
    mask = jnp.asarray(checks.as_mask("mask", mask))
    padded = jnp.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(1, 1), (1, 1)])
    inner = padded[..., :-2, 1:-1] & padded[..., 2:, 1:-1]
    inner &= padded[..., 1:-1, :-2] & padded[..., 1:-1, 2:]
    return mask & ~inner


def surface_scores(
    predicted: Masks,
    truth: Masks,
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] = (1.0, 1.0),
    extent: Array | None = None,
) -> dict[str, jax.Array]:
    """Computes distances between two outlines, and their fractions within a tolerance.

    With outlines P and T, and d(p, T) the distance of a pixel center to the nearest of
    T:

        hd = max(max d(p, T), max d(t, P))
        hd95 = the same with 95th percentiles, linearly interpolated
        assd = (sum d(p, T) + sum d(t, P)) / (|P| + |T|)
        nsd = (#{d(p, T) <= tolerance} + #{d(t, P) <= tolerance}) / (|P| + |T|)
        boundary_f1 = the harmonic mean of the two fractions, of P and of T

    If both masks are empty: NaN. If one is empty: the worst values, `extent` for
    distances and 0 for fractions.

    Args:
        predicted: [..., H, W].
        truth: [..., H, W].
        tolerance: In the unit of `spacing`.
        spacing: (height, width) of a pixel.
        extent: [...] the largest possible distance in an image; by default the diagonal
            of [H, W] between pixel centers.

    Returns:
        Arrays [...]: distances in the unit of `spacing`, fractions in [0, 1].

    Raises:
        ValueError: If spacing is not two numbers above 0, or tolerance is below 0.

    Reference:
        Csurka et al., What is a good evaluation measure for semantic segmentation?,
        BMVC 2013 (boundary F1). Nikolov et al., 2018, arXiv:1809.04430 (surface Dice);
        it weighs outline elements by their length, while this counts pixels. hd95 is
        the larger of the percentiles of the two directions, not one percentile of both
        together.
    """
    checks.shapes(predicted=(predicted, "... H W"), truth=(truth, "... H W"))
    if not 0 <= tolerance < math.inf:
        raise UserError(
            f"tolerance needs a distance of at least 0, in the unit of spacing, got "
            f"{tolerance}. Try 1.0."
        )
    edges = outline(predicted), outline(truth)
    far = [ops.distance_transform(~edge, spacing=spacing) for edge in edges]
    if extent is None:
        extent = common.diagonal(jnp.ones_like(truth, bool), spacing=spacing)
    count = [jnp.sum(edge, axis=(-2, -1)) for edge in edges]
    scores = _scores(edges, far[::-1], count, tolerance)
    both, none = (count[0] > 0) & (count[1] > 0), (count[0] + count[1]) == 0
    worst = {"hd": extent, "hd95": extent, "assd": extent}
    return {
        k: jnp.where(none, jnp.nan, jnp.where(both, v, worst.get(k, 0.0)))
        for k, v in scores.items()
    }


def _scores(edges, far, count, tolerance) -> dict[str, jax.Array]:
    """The scores of non-empty outlines; undefined if one is empty."""
    pairs = list(zip(edges, far, count, strict=True))
    least = [jnp.maximum(n, 1) for n in count]
    # A float32 root may be one ulp above the tolerance that it should equal.
    limit = tolerance * (1 + 1e-6)
    within = [jnp.sum(e & (d <= limit), axis=(-2, -1)) for e, d, _ in pairs]
    total = [jnp.sum(jnp.where(e, d, 0), axis=(-2, -1)) for e, d, _ in pairs]
    share = [n / m for n, m in zip(within, least, strict=True)]
    furthest = [jnp.max(jnp.where(e, d, 0), axis=(-2, -1)) for e, d, _ in pairs]
    tails = [_percentile(_flat(d), _flat(e), 0.95) for e, d, _ in pairs]
    length = jnp.maximum(count[0] + count[1], 1)
    return {
        "hd": jnp.maximum(*furthest),
        "hd95": jnp.maximum(*tails),
        "assd": (total[0] + total[1]) / length,
        "nsd": (within[0] + within[1]) / length,
        "boundary_f1": 2 * share[0] * share[1] / jnp.maximum(share[0] + share[1], 1e-9),
    }


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def _percentile(values: jax.Array, where: jax.Array, q: float) -> jax.Array:
    """`numpy.percentile` along the last axis, for values of at least 0."""
    count = jnp.maximum(jnp.sum(where, axis=-1), 1)
    position = q * (count - 1)
    rank = jnp.floor(position).astype(jnp.int32)
    ranked = jnp.where(where, values, -1)
    low = jnp.asarray(ops.kth_largest(ranked, count - rank))
    above = where & (values > low[..., None])
    # The next value in rank is equal, unless only `rank` + 1 values are that small.
    same = jnp.sum(where & ~above, axis=-1) > rank + 1
    high = jnp.min(jnp.where(above, values, jnp.inf), axis=-1)
    high = jnp.where(same | (high == jnp.inf), low, high)
    return low + (position - rank) * (high - low)


def surface(
    classes: Sequence[str],
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] = (1.0, 1.0),
    ignore_background: bool = True,
) -> MetricFn:
    """Builds the surface distances of each class from one logit map per image.

    Runs on the device. Invalid pixels and pixels outside the image are background in
    labels and prediction. If only one of them is empty, distances are the diagonal of
    the box around the valid pixels.

    Args:
        classes: C distinct names, one for each channel of the logits.
        tolerance: For `nsd` and `boundary_f1`, in the unit of `spacing`.
        spacing: (height, width) of a pixel.
        ignore_background: Whether class 0 is background and not scored.

    Returns:
        `(logits, batch) -> PerImage` with `mean_hd_per_image`, the mean over images
        of the mean over the classes in that image, and `hd_per_image/<name>`; likewise
        `hd95`, `assd`, `nsd` and `boundary_f1`. See `surface_scores`.

    Raises:
        ValueError: As for `semantic` and `surface_scores`.
    """
    classes = common.check_distinct(classes)
    kept = common.scored_classes(classes, ignore_background=ignore_background)

    def metric(logits: Logits, batch: Batch) -> PerImage:
        predicted, labels, valid, batch = common.predicted_and_masked_labels(
            logits, batch, classes=classes
        )
        extent = common.diagonal(valid, spacing=spacing)
        # One class at a time, because C distance maps may not fit in memory.
        scores = {
            name: surface_scores(
                (predicted == c) & valid,
                (labels == c) & valid,
                tolerance=tolerance,
                spacing=spacing,
                extent=extent,
            )
            for c, name in kept
        }
        return PerImage.from_batch(common.named_per_image(scores), batch)

    return metric
