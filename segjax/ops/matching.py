"""Which box is to predict which object, and which boxes a step learns from."""

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax.ops.select import argsort
from segjax.typing import Array


class Matches(NamedTuple):
    """What each of A boxes stands for; neither positive nor negative: for nothing.

    Attributes:
        index: int32 [A], the object that it overlaps most; 0 where there is none.
        positive: bool [A], is to predict that object.
        negative: bool [A], is to predict background.
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
    """Gives each box the object that it overlaps most, if it overlaps it enough.

    Args:
        iou: [N, A] of every object with every box.
        object_mask: [N] False for slots that hold no object.
        valid: [A] False for boxes that are padding: neither positive nor negative.
        high_threshold: Least IoU of a positive box.
        low_threshold: IoU below which a box is negative; at most `high_threshold`.

    Returns:
        The matches. Without an object every valid box is negative.

    Raises:
        ValueError: If background is above foreground.

    Reference:
        Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1.2;
        equals torchvision's `Matcher`.
    """
    if low_threshold > high_threshold:
        raise ValueError(
            f"match needs background of at most foreground, got {low_threshold} and "
            f"{high_threshold}. Swap them, or give both the same number."
        )
    iou = _masked_iou(iou, object_mask, valid)
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
    """`match`, and the boxes that overlap an object most are positive anyhow.

    So that every object has a box to predict it. Boxes that tie for an object are all
    positive; each is given the object that it overlaps most itself, which may be
    another one.

    Args:
        iou: [N, A] of every object with every box.
        object_mask: [N] False for slots that hold no object.
        valid: [A] False for boxes that are padding: neither positive nor negative.
        high_threshold: Least IoU of a positive box.
        low_threshold: IoU below which a box is negative; at most `high_threshold`.

    Returns:
        The matches. Without an object every valid box is negative.

    Raises:
        ValueError: If background is above foreground.

    Reference:
        torchvision's `Matcher` with `allow_low_quality_matches`. There an object that
        overlaps no box at all makes every box positive; here it makes none.
    """
    matches = match(
        iou, object_mask, valid, high_threshold=high_threshold, low_threshold=low_threshold
    )
    iou = _masked_iou(iou, object_mask, valid)
    most = jnp.max(iou, axis=1, keepdims=True)
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
    """Draws boxes without putting any back, positive ones up to a share.

    Of the positive boxes int(count * positive_fraction) are drawn, or all if there
    are fewer; negative ones fill up to `num_samples`, as far as there are any. With a count
    of A and a fraction of 1 everything is taken.

    Args:
        rank: [A] random numbers in [0, 1), such as `jax.random.uniform(key, (A,))`;
            lower ones are drawn first. Numbers that belong to a box wherever it is
            in the array make the draw independent of padding.
        positive: [A] boxes that are to predict an object.
        negative: [A] boxes that are to predict background; none is both.
        num_samples: K, at least 1.
        positive_fraction: In [0, 1].

    Returns:
        index: int32 [K] of the drawn boxes, positive ones first, so that these lie
            in the first int(K * positive_fraction) slots; 0 where not used.
        slot_mask: bool [K], True for as many slots as boxes were drawn.

    Reference:
        torchvision's `BalancedPositiveNegativeSampler`.
    """
    chex.assert_equal_shape([rank, positive, negative])
    size = positive.shape[0]
    # In a random order, positive ones before negative ones before the rest.
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
    """The draw of `sample_balanced` as the two masks, cut to what was drawn.

    Args:
        rank: [A] random numbers in [0, 1).
        positive: [A] boxes that are to predict an object.
        negative: [A] boxes that are to predict background; none is both.
        num_samples: Boxes to draw, at least 1.
        positive_fraction: In [0, 1].

    Returns:
        Two bool [A]: the positive and the negative boxes that were drawn.
    """
    index, slot_mask = sample_balanced(
        rank, positive, negative, num_samples=num_samples, positive_fraction=positive_fraction
    )
    drawn = jnp.zeros(positive.shape, bool).at[index].max(slot_mask)
    return positive & drawn, negative & drawn


def _masked_iou(iou, object_mask, valid):
    """-1, less than any IoU, where the object or the box does not count."""
    chex.assert_equal_shape_prefix([iou, object_mask], 1)
    return jnp.where(object_mask[:, None] & valid[None, :], iou, -1)
