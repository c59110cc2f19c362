"""Distances between the outlines of two masks."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.metrics import common
from segjax.metrics.common import Masks
from segjax.ops import checks
from segjax.typing import Array


def outline(mask: Masks) -> Masks:
    """Computes the True pixels next to a False pixel or to the image's edge.

    Equals the mask minus its erosion by the 4-neighborhood.

    Args:
        mask: [..., H, W].

    Returns:
        [..., H, W]; empty for an empty mask, the edge of the image if all pixels are
        True.
    """
    return _outline(mask, 2)


def _outline(mask: Masks, dimensions: int) -> Masks:
    """`outline` of the last axes; in a volume, by the six neighbors of a voxel."""
    mask = jnp.asarray(checks.as_mask("mask", mask))
    lead = [(0, 0)] * (mask.ndim - dimensions)
    padded = jnp.pad(mask, lead + [(1, 1)] * dimensions)
    inner = mask
    for axis in range(mask.ndim - dimensions, mask.ndim):
        for start in (0, 2):
            places = [slice(None)] * len(lead) + [slice(1, -1)] * dimensions
            places[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(places)]
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
        predicted: [..., H, W], or [..., D, H, W]: volumes, if `spacing` has three
            numbers.
        truth: Likewise.
        tolerance: In the unit of `spacing`.
        spacing: (height, width) of a pixel, or (depth, height, width) of a voxel.
        extent: [...] the largest possible distance in an image; by default the diagonal
            of the image between pixel centers.

    Returns:
        Arrays [...]: distances in the unit of `spacing`, fractions in [0, 1].

    Raises:
        ValueError: If spacing is not two or three numbers above 0, or tolerance is
            below 0.

    Reference:
        Csurka et al., What is a good evaluation measure for semantic segmentation?,
        BMVC 2013 (boundary F1). Nikolov et al., 2018, arXiv:1809.04430 (surface Dice);
        it weighs outline elements by their length, while this counts pixels, see
        `surface_scores_by_length`. hd95 is the larger of the percentiles of the two
        directions, not one percentile of both together.
    """
    sides = _sides(predicted, truth, tolerance, spacing)
    (a, b), count = sides, [side["count"] for side in sides]
    length = jnp.maximum(count[0] + count[1], 1)
    both = jnp.maximum(a["within"] + b["within"], 1e-9)
    scores = {
        "hd": jnp.maximum(a["hd"], b["hd"]),
        "hd95": jnp.maximum(a["hd95"], b["hd95"]),
        "assd": (a["sum"] + b["sum"]) / length,
        "nsd": (a["num_within"] + b["num_within"]) / length,
        "boundary_f1": 2 * a["within"] * b["within"] / both,
    }
    distances = ("hd", "hd95", "assd")
    return with_empty(
        scores, distances, count, extent_or_diagonal(truth, spacing, extent)
    )


def directed_surface_scores(
    predicted: Masks,
    truth: Masks,
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] = (1.0, 1.0),
    extent: Array | None = None,
) -> dict[str, jax.Array]:
    """Computes the distances of each outline to the other one, without joining them.

    Args:
        predicted: As for `surface_scores`, and so are the other arguments.
        truth: Likewise.
        tolerance: In the unit of `spacing`.
        spacing: (height, width) of a pixel, or (depth, height, width) of a voxel.
        extent: [...] the largest possible distance in an image.

    Returns:
        `hd_from_predicted`, the largest distance of a pixel of the predicted outline to
        the true one; `hd95_from_predicted`, its 95th percentile; `asd_from_predicted`,
        the mean; `within_from_predicted`, the fraction within the tolerance; and the
        same from the true outline to the predicted one, `hd_from_truth` and so on. All
        [...]; for empty masks as in `surface_scores`.

    Raises:
        ValueError: As for `surface_scores`.
    """
    sides = _sides(predicted, truth, tolerance, spacing)
    count, scores = [side["count"] for side in sides], {}
    for name, side in zip(("predicted", "truth"), sides, strict=True):
        mean = side["sum"] / jnp.maximum(side["count"], 1)
        kept = {k: side[k] for k in ("hd", "hd95", "within")} | {"asd": mean}
        scores |= {f"{k}_from_{name}": v for k, v in kept.items()}
    distances = [k for k in scores if not k.startswith("within")]
    return with_empty(
        scores, distances, count, extent_or_diagonal(truth, spacing, extent)
    )


def with_empty(
    scores: dict[str, jax.Array],
    distances: Sequence[str],
    count: Sequence[jax.Array],
    extent: Array,
) -> dict[str, jax.Array]:
    """The scores, NaN if both outlines are empty, the worst if one is.

    Args:
        scores: [...] each.
        distances: Names of those that are `extent` at worst; others are 0.
        count: [...] pixels, or lengths, of the two outlines.
        extent: [...].
    """
    both, none = (count[0] > 0) & (count[1] > 0), (count[0] + count[1]) == 0
    worst = dict.fromkeys(distances, extent)
    return {
        k: jnp.where(none, jnp.nan, jnp.where(both, v, worst.get(k, 0.0)))
        for k, v in scores.items()
    }


def check_tolerance(tolerance: float) -> float:
    """Returns the tolerance, an ulp larger: a float32 root may be that much above.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if not 0 <= tolerance < math.inf:
        raise UserError(
            f"tolerance needs a distance of at least 0, in the unit of spacing, got "
            f"{tolerance}. Try 1.0."
        )
    return tolerance * (1 + 1e-6)


def extent_or_diagonal(
    truth: Masks, spacing: Sequence[float], extent: Array | None
) -> Array:
    """The given extent [...], or the diagonal of the image between pixel centers."""
    if extent is not None:
        return extent
    return common.diagonal(jnp.ones_like(truth, bool), spacing=spacing)


def _sides(
    predicted: Masks, truth: Masks, tolerance: float, spacing: Sequence[float]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """What the scores are made of, from the predicted outline and from the true one.

    Values are [...], and undefined if an outline is empty.
    """
    names = "... D H W" if len(spacing) == 3 else "... H W"
    checks.shapes(predicted=(predicted, names), truth=(truth, names))
    limit = check_tolerance(tolerance)
    axes = tuple(range(-len(spacing), 0))
    edges = [_outline(mask, len(spacing)) for mask in (predicted, truth)]
    far = [ops.distance_transform(~edge, spacing=spacing) for edge in edges]

    def side(edge, distance):
        count = jnp.sum(edge, axis=axes)
        num_within = jnp.sum(edge & (distance <= limit), axis=axes)
        kept = jnp.where(edge, distance, 0)
        return {
            "count": count,
            "hd": jnp.max(kept, axis=axes),
            "hd95": _percentile(_flat(distance, axes), _flat(edge, axes), 0.95),
            "sum": jnp.sum(kept, axis=axes),
            "num_within": num_within,
            "within": num_within / jnp.maximum(count, 1),
        }

    return side(edges[0], far[1]), side(edges[1], far[0])


def _flat(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    return x.reshape(*x.shape[: -len(axes)], math.prod(x.shape[-len(axes) :]))


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
