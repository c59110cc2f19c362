"""Non-maximum suppression, exactly greedy, with fixed shapes."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from segjax.ops.boxes import box_iou
from segjax.typing import Array


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int[Array, " m"], Bool[Array, " m"]]:
    """Keeps the best box, drops those that overlap it too much, and again.

    Args:
        boxes: [N, 4] (x0, y0, x1, y1) in pixels.
        scores: [N]; of equal scores the one of the lower index goes first.
        valid: [N] False for padding: boxes and scores there are never read.
        iou_threshold: In [0, 1]; a box goes if its IoU with a kept one is above it.
        max_outputs: M, the most boxes that are kept.

    Returns:
        index: int32 [M] of the kept boxes, best first; 0 where not present.
        present: bool [M], True for as many slots as boxes were kept.
        No gradient flows through either.
    """
    classes = jnp.zeros(scores.shape, jnp.int32)
    return class_nms(
        boxes,
        scores,
        classes,
        valid,
        iou_threshold=iou_threshold,
        max_outputs=max_outputs,
    )


def class_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Int[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int[Array, " m"], Bool[Array, " m"]]:
    """`nms` in which a box can only drop boxes of its own class.

    Equals NMS class by class, joined and cut to the `max_outputs` best. Classes are
    compared, and not moved apart by adding an offset to boxes, which rounds them.

    Args:
        boxes: [N, 4] (x0, y0, x1, y1) in pixels.
        scores: [N]; of equal scores the one of the lower index goes first.
        classes: [N] any integers, such as class ids or pyramid levels.
        valid: [N] False for padding: boxes and scores there are never read.
        iou_threshold: In [0, 1]; a box goes if its IoU with a kept one is above it.
        max_outputs: M, the most boxes that are kept over all classes.

    Returns:
        index: int32 [M] of the kept boxes, best first; 0 where not present.
        present: bool [M], True for as many slots as boxes were kept.
        No gradient flows through either.
    """
    chex.assert_equal_shape_prefix([boxes, scores, classes, valid], 1)
    boxes, scores = jax.lax.stop_gradient((boxes, scores))
    boxes = jnp.where(valid[:, None], boxes, 0)
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    order = order.astype(jnp.int32)
    boxes, classes, valid = boxes[order], classes[order], valid[order]

    def keep_one(slot, carry):
        alive, index, present = carry
        first = jnp.argmax(alive)  # The best that is left: they are in order.
        overlap = box_iou(boxes[first][None], boxes)[0]
        dropped = (overlap > iou_threshold) & (classes == classes[first])
        index = index.at[slot].set(jnp.where(alive[first], order[first], 0))
        present = present.at[slot].set(alive[first])
        alive = alive & ~dropped & (jnp.arange(len(alive)) != first)
        return alive, index, present

    start = (
        valid,
        jnp.zeros(max_outputs, jnp.int32),
        jnp.zeros(max_outputs, bool),
    )
    _, index, present = jax.lax.fori_loop(
        0, min(max_outputs, len(scores)), keep_one, start
    )
    return index, present
