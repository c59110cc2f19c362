"""Matching of boxes to objects, and balanced sampling of boxes for the losses."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax.errors import UserError
from segjax.ops import checks
from segjax.ops.select import argsort
from segjax.typing import Array


class Matches(NamedTuple):
    """Matches of A boxes; those neither positive nor negative are ignored.

    Attributes:
        index: int32 [A], the object with the largest IoU; 0 without objects.
        positive: bool [A], boxes that predict the object.
        negative: bool [A], boxes that predict background.
    """

    index: Int[Array, " a"]
    positive: Bool[Array, " a"]
    negative: Bool[Array, " a"]


def match(
    iou: Float[Array, "n a"],
    object_mask: Bool[Array, " n"],
    valid: Bool[Array, " a"],
    *,
    high_threshold: float,
    low_threshold: float,
) -> Matches:
    """Matches each box to the object with the largest IoU.

    Args:
        iou: [N, A] IoU of every object with every box.
        object_mask: [N] False for empty slots.
        valid: [A] False for padding boxes, which are neither positive nor negative.
        high_threshold: Smallest IoU of a positive box.
        low_threshold: IoU below which a box is negative; at most `high_threshold`.

    Returns:
        The matches. Without objects every valid box is negative.

    Raises:
        ValueError: If low_threshold is above high_threshold.

    Reference:
        Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1.2;
        equals torchvision's `Matcher`.
    """
    if low_threshold > high_threshold:
        raise UserError(
            f"match needs low_threshold of at most high_threshold, got {low_threshold} "
            f"and {high_threshold}. Swap them, or use the same number for both."
        )
    checks.number("match", "high_threshold", high_threshold)
    checks.number("match", "low_threshold", low_threshold)
    iou = _masked_iou(iou, object_mask, valid)
    valid = checks.as_mask("valid", valid)
    best = jnp.max(iou, axis=0)
    return Matches(
        jnp.argmax(iou, axis=0).astype(jnp.int32),
        valid & (best >= high_threshold),
        valid & (best < low_threshold),
    )


def match_every_object(
    iou: Float[Array, "n a"],
    object_mask: Bool[Array, " n"],
    valid: Bool[Array, " a"],
    *,
    high_threshold: float,
    low_threshold: float,
) -> Matches:
    """`match`, where the boxes with the largest IoU of each object are always positive.

    This gives every object that overlaps a box at least one positive box. Boxes that
    tie for an object are all positive. `index` is still the object with the largest IoU
    for the box, which may be a different object.

    Args:
        iou: [N, A] IoU of every object with every box.
        object_mask: [N] False for empty slots.
        valid: [A] False for padding boxes, which are neither positive nor negative.
        high_threshold: Smallest IoU of a positive box.
        low_threshold: IoU below which a box is negative; at most `high_threshold`.

    Returns:
        The matches. Without objects every valid box is negative.

    Raises:
        ValueError: If low_threshold is above high_threshold.

    Reference:
        torchvision's `Matcher` with `allow_low_quality_matches`. There an object that
        overlaps no box makes every box positive; here it makes none positive.
    """
    matches = match(
        iou,
        object_mask,
        valid,
        high_threshold=high_threshold,
        low_threshold=low_threshold,
    )
    iou = _masked_iou(iou, object_mask, valid)
    most = jnp.max(iou, axis=1, keepdims=True, initial=-1)
    tied = jnp.any((iou == most) & (most > 0), axis=0)
    return Matches(matches.index, matches.positive | tied, matches.negative & ~tied)


def sample_balanced(
    rank: Float[Array, " a"],
    positive: Bool[Array, " a"],
    negative: Bool[Array, " a"],
    *,
    num_samples: int,
    positive_fraction: float,
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """Samples boxes without replacement, with at most a fraction of positives.

    Samples int(num_samples * positive_fraction) of the positive boxes, or all if there
    are fewer, and fills up to `num_samples` with negative boxes, if there are enough.
    With num_samples=A and positive_fraction=1 all of them are sampled.

    Args:
        rank: [A] random numbers in [0, 1), such as `jax.random.uniform(key, (A,))`; the
            lowest are sampled first. If the number of a box does not depend on its
            position, sampling is independent of padding.
        positive: [A] positive boxes.
        negative: [A] negative boxes, disjoint from the positive ones.
        num_samples: K, at least 1.
        positive_fraction: In [0, 1].

    Returns:
        index: int32 [K] of the sampled boxes. Positive ones come first, within the
            first int(K * positive_fraction) slots. 0 in empty slots.
        slot_mask: bool [K], False for empty slots.

    Reference:
        torchvision's `BalancedPositiveNegativeSampler`.
    """
    checks.shapes(rank=(rank, "A"), positive=(positive, "A"), negative=(negative, "A"))
    checks.whole_number("sample_balanced", "num_samples", num_samples, least=1)
    checks.number(
        "sample_balanced", "positive_fraction", positive_fraction, least=0, most=1
    )
    size = positive.shape[0]
    if not size:
        return jnp.zeros(num_samples, jnp.int32), jnp.zeros(num_samples, bool)
    # Random order: positive boxes, then negative ones, then the rest.
    order = argsort(jnp.where(positive, rank, jnp.where(negative, 1 + rank, 3)))
    positives = jnp.sum(positive, dtype=jnp.int32)
    negatives = jnp.sum(negative, dtype=jnp.int32)
    taken = jnp.minimum(positives, int(num_samples * positive_fraction))
    slot = jnp.arange(num_samples, dtype=jnp.int32)
    slot_mask = slot < taken + jnp.minimum(negatives, num_samples - taken)
    place = jnp.where(slot < taken, slot, slot - taken + positives)
    index = order[jnp.clip(place, 0, size - 1)]
    return jnp.where(slot_mask, index, 0), slot_mask


def sample_balanced_masks(
    rank: Float[Array, " a"],
    positive: Bool[Array, " a"],
    negative: Bool[Array, " a"],
    *,
    num_samples: int,
    positive_fraction: float,
) -> tuple[Bool[Array, " a"], Bool[Array, " a"]]:
    """`sample_balanced` that returns masks of the sampled boxes.

    Args:
        rank: [A] random numbers in [0, 1).
        positive: [A] positive boxes.
        negative: [A] negative boxes, disjoint from the positive ones.
        num_samples: Number of boxes to sample, at least 1.
        positive_fraction: In [0, 1].

    Returns:
        Two bool [A]: the sampled positive and the sampled negative boxes.
    """
    index, slot_mask = sample_balanced(
        rank,
        positive,
        negative,
        num_samples=num_samples,
        positive_fraction=positive_fraction,
    )
    drawn = jnp.zeros(positive.shape, bool).at[index].max(slot_mask)
    return positive & drawn, negative & drawn


def _masked_iou(iou, object_mask, valid):
    """Sets the IoU of empty slots and padding boxes to -1."""
    checks.shapes(iou=(iou, "N A"), object_mask=(object_mask, "N"), valid=(valid, "A"))
    object_mask = checks.as_mask("object_mask", object_mask)
    valid = checks.as_mask("valid", valid)
    if not iou.shape[0]:  # No slots are as one that is empty.
        iou, object_mask = jnp.zeros((1, *iou.shape[1:])), jnp.zeros(1, bool)
    return jnp.where(object_mask[:, None] & valid[None, :], iou, -1)
