"""Non-maximum suppression, exactly greedy, with fixed shapes.

On CPUs, each step keeps one box and compares it with all others, so there is no matrix
of all pairs. docs/speed.md compares the two.

On other devices a step costs more than its arithmetic. There, up to `_ALL_PAIRS` boxes
are all compared at once, and the kept boxes are recomputed from the pairs until they no
longer change. The result is the same; the number of passes is the length of the longest
chain of boxes that suppress each other. This has not been measured.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer

from segjax.ops import checks
from segjax.ops.boxes import iou_of_corners
from segjax.ops.select import argsort
from segjax.typing import Array

_ALL_PAIRS = 4096


def nms(
    boxes: Float[Array, "n 4"] | Integer[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"] | Integer[Array, " n"],
    *,
    iou_threshold: float | Float[Array, ""],
    max_outputs: int,
) -> tuple[Int[Array, " m"], Bool[Array, " m"]]:
    """Computes greedy non-maximum suppression.

    Args:
        boxes: [N, 4] (x0, y0, x1, y1) in pixels.
        scores: [N]; of equal scores the box of the lower index is first. NaN is the
            lowest: a box without a score suppresses none that has one.
        valid: [N] False for padding, whose boxes and scores are ignored.
        iou_threshold: In [0, 1]; a box is suppressed if its IoU with a kept box is
            above it, both in float32 (float64 if the boxes have it). May be traced.
        max_outputs: M, the largest number of boxes kept.

    Returns:
        index: int32 [M] of the kept boxes, best first; 0 in empty slots.
        slot_mask: bool [M], False for empty slots.
        No gradient flows through either.

    Raises:
        ValueError: If a shape or dtype, the threshold or max_outputs is wrong.
    """
    classes = jnp.zeros(scores.shape, jnp.int32)
    return multiclass_nms(
        boxes,
        scores,
        classes,
        valid,
        iou_threshold=iou_threshold,
        max_outputs=max_outputs,
    )


def multiclass_nms(
    boxes: Float[Array, "n 4"] | Integer[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Integer[Array, " n"],
    valid: Bool[Array, " n"] | Integer[Array, " n"],
    *,
    iou_threshold: float | Float[Array, ""],
    max_outputs: int,
) -> tuple[Int[Array, " m"], Bool[Array, " m"]]:
    """Computes `nms` for each class separately.

    Equals NMS class by class, concatenated and limited to the `max_outputs` best.
    Classes are compared directly; torchvision's `batched_nms` adds offsets to the
    boxes, which rounds them.

    Args:
        boxes: [N, 4] (x0, y0, x1, y1) in pixels.
        scores: [N]; of equal scores the box of the lower index is first. NaN is the
            lowest: a box without a score suppresses none that has one.
        classes: [N] any integers, such as class ids or pyramid levels.
        valid: [N] False for padding, whose boxes and scores are ignored.
        iou_threshold: In [0, 1]; a box is suppressed if its IoU with a kept box is
            above it, both in float32 (float64 if the boxes have it). May be traced.
        max_outputs: M, the largest number of boxes kept over all classes.

    Returns:
        index: int32 [M] of the kept boxes, best first; 0 in empty slots.
        slot_mask: bool [M], False for empty slots.
        No gradient flows through either.
    """
    checks.shapes(
        boxes=(boxes, "N 4"),
        scores=(scores, "N"),
        classes=(classes, "N"),
        valid=(valid, "N"),
    )
    checks.number("nms", "iou_threshold", iou_threshold, least=0, most=1)
    checks.whole_number("nms", "max_outputs", max_outputs, least=0)
    boxes, scores = checks.as_floats("boxes", boxes), checks.as_floats("scores", scores)
    valid = checks.as_mask("valid", valid)
    if not boxes.shape[0] or not max_outputs:
        return jnp.zeros(max_outputs, jnp.int32), jnp.zeros(max_outputs, bool)
    boxes, scores = jax.lax.stop_gradient((boxes, scores))
    # Empty slots last; NaN before them, where no score is lower.
    order = argsort(jnp.where(valid & ~jnp.isnan(scores), -scores, jnp.inf))
    corners = jnp.where(valid[:, None], boxes, 0)[order].T
    classes, valid = jnp.asarray(classes)[order], jnp.asarray(valid)[order]
    arguments = (corners, classes, valid, jnp.asarray(iou_threshold, corners.dtype))
    in_turn = functools.partial(_keep_in_turn, max_outputs=max_outputs)
    if scores.shape[0] > _ALL_PAIRS:
        place, kept = in_turn(*arguments)
    else:
        at_once = functools.partial(_keep_at_once, max_outputs=max_outputs)
        place, kept = jax.lax.platform_dependent(
            *arguments, cpu=in_turn, default=at_once
        )
    slot_mask = jnp.arange(max_outputs) < kept
    return jnp.where(slot_mask, order[place], 0), slot_mask


def _keep_in_turn(corners, classes, valid, threshold, *, max_outputs: int):
    """Positions [M] of the kept boxes, for boxes sorted by score, and their number."""
    count = len(classes)
    places = jnp.arange(count, dtype=jnp.int32)

    def some_left(carry):
        slot, best, _, _ = carry
        return (slot < max_outputs) & (best < count)

    def keep_best(carry):
        slot, best, left, kept = carry
        overlap = iou_of_corners(corners[:, best, None], corners)
        drops = (overlap > threshold) & (classes == classes[best])
        left = jnp.where(drops | (places == best), count, left)
        return slot + 1, jnp.min(left), left, kept.at[slot].set(best)

    left = jnp.where(valid, places, count)  # `count` for suppressed boxes.
    kept = jnp.zeros(max_outputs, jnp.int32)
    start = (jnp.int32(0), jnp.min(left), left, kept)
    number, _, _, kept = jax.lax.while_loop(some_left, keep_best, start)
    return kept, number


def _keep_at_once(corners, classes, valid, threshold, *, max_outputs: int):
    """`_keep_in_turn`, computed from all pairs."""
    places = jnp.arange(len(classes), dtype=jnp.int32)
    drops = iou_of_corners(corners[:, :, None], corners[:, None]) > threshold
    drops &= classes[:, None] == classes[None]
    drops &= places[:, None] < places[None]  # Only a better box suppresses another.

    def changes(carry):
        before, keep = carry
        return jnp.any(before != keep)

    def again(carry):
        _, keep = carry
        return keep, valid & ~jnp.any(drops & keep[:, None], axis=0)

    _, keep = jax.lax.while_loop(changes, again, (~valid, valid))
    (kept,) = jnp.nonzero(keep, size=max_outputs, fill_value=0)
    number = jnp.minimum(jnp.sum(keep, dtype=jnp.int32), max_outputs)
    return kept.astype(jnp.int32), number
