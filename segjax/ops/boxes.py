"""Boxes (x0, y0, x1, y1) at pixel edges: the box of a single pixel is 1 wide.

The pixel in row r and column c is the square from (c, r) to (c + 1, r + 1). A box
with x1 <= x0 or y1 <= y0 has no area.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Num

from segjax.ops import checks
from segjax.typing import Array

Boxes = Float[Array, "*batch 4"] | Integer[Array, "*batch 4"]
"""Integers become float32, and so do float16 and bfloat16: areas need the range."""
Masks = Bool[Array, "n h w"] | Integer[Array, "n h w"]
"""True, or not 0, on the object."""

MAX_LOG_SCALE = math.log(1000 / 16)
"""Limit of the log of the growth of a decoded box in width or height."""


def box_area(boxes: Boxes) -> Float[Array, "*batch"]:
    """Computes areas in square pixels, in at least float32; 0 without area."""
    checks.shapes(boxes=(boxes, "... 4"))
    boxes = checks.as_floats("boxes", boxes)
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def box_iou(
    boxes: Float[Array, "n 4"] | Integer[Array, "n 4"],
    others: Float[Array, "m 4"] | Integer[Array, "m 4"],
) -> Float[Array, "n m"]:
    """Computes the IoU (intersection over union) of all pairs of boxes.

    Args:
        boxes: [N, 4] in pixels.
        others: [M, 4] in pixels.

    Returns:
        [N, M] in [0, 1], in at least float32; 0, not NaN, where a box has no area.
    """
    checks.shapes(boxes=(boxes, "N 4"), others=(others, "M 4"))
    corners = checks.as_floats("boxes", boxes).T
    other = checks.as_floats("others", others).T
    return iou_of_corners(corners[:, :, None], other[:, None, :])


def iou_of_corners(
    corners: Float[Array, "4 *#batch"], others: Float[Array, "4 *#batch"]
) -> Float[Array, "*batch"]:
    """Computes the IoU with coordinates on the first axis, which is fast on CPUs.

    Args:
        corners: [4, ...], x0, y0, x1 and y1.
        others: [4, ...]; the other axes broadcast.

    Returns:
        [...] in [0, 1]; 0, not NaN, where a box has no area.
    """
    x0, y0, x1, y1 = corners
    u0, v0, u1, v1 = others
    width = jnp.maximum(jnp.minimum(x1, u1) - jnp.maximum(x0, u0), 0)
    shared = width * jnp.maximum(jnp.minimum(y1, v1) - jnp.maximum(y0, v0), 0)
    area = jnp.maximum(x1 - x0, 0) * jnp.maximum(y1 - y0, 0)
    other = jnp.maximum(u1 - u0, 0) * jnp.maximum(v1 - v0, 0)
    union = area + other - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1), 0)


def mask_iou(
    masks: Masks, others: Bool[Array, "m h w"] | Integer[Array, "m h w"]
) -> Float[Array, "n m"]:
    """Computes the IoU of all pairs of masks.

    Args:
        masks: [N, H, W] True, or not 0, on the object.
        others: [M, H, W].

    Returns:
        [N, M] float32 in [0, 1]; 0 where both are empty. Exact up to 2**24 pixels.
    """
    checks.shapes(masks=(masks, "N H W"), others=(others, "M H W"))
    masks, others = checks.as_mask("masks", masks), checks.as_mask("others", others)
    pixels = masks.shape[1] * masks.shape[2]
    flat, other = (
        jnp.asarray(x, jnp.float32).reshape(x.shape[0], pixels) for x in (masks, others)
    )
    # 0 and 1 are exact at any matmul precision; sums are float32.
    shared = flat @ other.T
    union = jnp.sum(flat, axis=1)[:, None] + jnp.sum(other, axis=1)[None, :] - shared
    return shared / jnp.maximum(union, 1)


def clip_boxes(
    boxes: Boxes, size: Num[Array, "2"] | Sequence[int]
) -> Float[Array, "*batch 4"]:
    """Clips boxes to an image.

    Args:
        boxes: [..., 4] in pixels.
        size: (height, width) of the image without its padding; may be traced.

    Returns:
        [..., 4], x in [0, width] and y in [0, height]. A box outside the image has no
        area afterwards.
    """
    checks.shapes(boxes=(boxes, "... 4"))
    boxes = jnp.asarray(boxes)
    if not jnp.issubdtype(boxes.dtype, jnp.floating):
        boxes = checks.as_floats("boxes", boxes)
    height, width = size[0], size[1]
    limit = jnp.stack([jnp.asarray(x, boxes.dtype) for x in (width, height) * 2])
    return jnp.clip(boxes, 0, limit.reshape((1,) * (boxes.ndim - 1) + (4,)))


def encode_boxes(
    targets: Boxes,
    boxes: Boxes,
    *,
    weights: Sequence[float],
) -> Float[Array, "*batch 4"]:
    """Computes the deltas from boxes to targets, the inverse of `decode_boxes`.

    With centers (x, y) and sizes (w, h), of the target and of the box (b),

        (wx * (x - xb) / wb, wy * (y - yb) / hb, ww * log(w / wb), wh * log(h / hb))

    Args:
        targets: [..., 4] in pixels.
        boxes: [..., 4] anchors or proposals, in pixels.
        weights: (wx, wy, ww, wh): (1, 1, 1, 1) for anchors and (10, 10, 5, 5) for
            proposals in Mask R-CNN.

    Returns:
        [..., 4] (dx, dy, dw, dh). 0, not NaN, where the target or the box has no area.

    Reference:
        Girshick et al., R-CNN, CVPR 2014, arXiv:1311.2524, appendix C. The weights
        are those of Fast R-CNN's code.
    """
    checks.shapes(targets=(targets, "... 4"), boxes=(boxes, "... 4"))
    targets = checks.as_floats("targets", targets)
    boxes = checks.as_floats("boxes", boxes)
    full = (box_area(targets) > 0) & (box_area(boxes) > 0)
    unit = jnp.asarray([0, 0, 1, 1], boxes.dtype)
    unit = jnp.broadcast_to(unit, boxes.shape)
    center, size = _center_and_size(jnp.where(full[..., None], targets, unit))
    base_center, base_size = _center_and_size(jnp.where(full[..., None], boxes, unit))
    move = _last(weights[:2], boxes) * (center - base_center) / base_size
    grow = _last(weights[2:], boxes) * jnp.log(size / base_size)
    return jnp.concatenate([move, grow], axis=-1)


def decode_boxes(
    deltas: Float[Array, "*batch 4"],
    boxes: Float[Array, "*#batch 4"] | Integer[Array, "*#batch 4"],
    *,
    weights: Sequence[float],
) -> Float[Array, "*batch 4"]:
    """Applies predicted deltas to boxes, the inverse of `encode_boxes`.

    Args:
        deltas: [..., 4] (dx, dy, dw, dh).
        boxes: [..., 4] anchors or proposals, in pixels; axes of length 1 broadcast,
            such as [R, 1, 4] for one box per class.
        weights: As given to `encode_boxes`.

    Returns:
        [..., 4] in pixels, as float32 (float64 is kept). Width and height grow by at
        most 1000 / 16.
    """
    checks.shapes(deltas=(deltas, "... 4"), boxes=(boxes, "... 4"))
    deltas = checks.as_floats("deltas", deltas)
    boxes = checks.as_floats("boxes", boxes).astype(deltas.dtype)
    deltas = deltas / _last(weights, deltas)
    center, size = _center_and_size(boxes)
    center = deltas[..., :2] * size + center
    half = 0.5 * jnp.exp(jnp.minimum(deltas[..., 2:], MAX_LOG_SCALE)) * size
    return jnp.concatenate([center - half, center + half], axis=-1)


def masks_to_boxes(masks: Masks) -> Float[Array, "n 4"]:
    """Computes the bounding box of each mask.

    Args:
        masks: [N, H, W] True, or not 0, on the object.

    Returns:
        [N, 4] float32 in pixels, including the last pixels: the box of a single pixel
        has area 1, as in COCO. (torchvision's `masks_to_boxes` returns the indices of
        the last pixels, one less.) The box of an empty mask is 0, 0, 0, 0.
    """
    checks.shapes(masks=(masks, "N H W"))
    masks = jnp.asarray(checks.as_mask("masks", masks))
    spans = []
    for axis in (1, 2):  # Over rows: which columns have True pixels; then over columns.
        hit = jnp.any(masks, axis=axis)
        length = hit.shape[1]
        first = jnp.argmax(hit, axis=1)
        end = length - jnp.argmax(hit[:, ::-1], axis=1)
        spans.append((first, jnp.where(jnp.any(hit, axis=1), end, 0)))
    (x0, x1), (y0, y1) = spans
    return jnp.stack([x0, y0, x1, y1], axis=-1).astype(jnp.float32)


def _center_and_size(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[..., 2] each, x before y."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def _last(numbers: Sequence[float], like: jax.Array) -> jax.Array:
    """Reshapes numbers to the last axis of `like`, with leading axes of length 1."""
    row = jnp.asarray(numbers, like.dtype)
    return row.reshape((1,) * (like.ndim - 1) + row.shape)
