"""Losses of boxes by their overlap: GIoU, DIoU and CIoU.

Each returns the sum over the boxes of an image and their number, as the other losses of
detections do, and compares box by box. Boxes are x0, y0, x1, y1 in pixels.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.losses.detection import Sum
from segjax.ops import checks
from segjax.typing import Array

Boxes = Float[Array, "b r 4"] | Integer[Array, "b r 4"]
BoxMask = Bool[Array, "b r"] | Integer[Array, "b r"]


def giou_sum(boxes: Boxes, targets: Boxes, box_mask: BoxMask) -> Sum:
    """Generalized IoU loss: 1 - IoU + the empty part of the box around both.

    With I and U the intersection and union and E the area of the smallest box that
    contains both, 1 - I / U + (E - U) / E.

    Args:
        boxes: [B, R, 4] predicted.
        targets: [B, R, 4] true; both are ignored where `box_mask` is False.
        box_mask: [B, R] boxes that count.

    Returns:
        In [0, 2] a box. Ratios of boxes without area are 0, not NaN, so that two equal
        boxes without area cost 1.

    Raises:
        ValueError: If a shape or dtype is wrong.

    Reference:
        Rezatofighi et al., Generalized Intersection over Union, 2019, algorithm 1.
        arXiv:1902.09630.
    """
    a, b, mask = _prepare(boxes, targets, box_mask)
    iou, union = _iou(a, b)
    around = _area(_around(a, b))
    return _sum(1 - iou + _ratio(around - union, around), mask)


def diou_sum(boxes: Boxes, targets: Boxes, box_mask: BoxMask) -> Sum:
    """Distance IoU loss: 1 - IoU + the squared distance of the centers.

    The distance is in units of the diagonal of the smallest box that contains both.

    Args:
        boxes: [B, R, 4] predicted.
        targets: [B, R, 4] true; both are ignored where `box_mask` is False.
        box_mask: [B, R] boxes that count.

    Returns:
        In [0, 2) a box; ratios of boxes without area as for `giou_sum`.

    Raises:
        ValueError: If a shape or dtype is wrong.

    Reference:
        Zheng et al., Distance-IoU Loss, 2020, section 3.2. arXiv:1911.08287.
    """
    a, b, mask = _prepare(boxes, targets, box_mask)
    return _sum(1 - _iou(a, b)[0] + _distance(a, b), mask)


def ciou_sum(boxes: Boxes, targets: Boxes, box_mask: BoxMask) -> Sum:
    """Complete IoU loss: that of `diou_sum`, and the difference of the aspect ratios.

    With angle = arctan(width / height) of a box and v = 4 / pi**2 * (difference of the
    angles)**2, it adds v**2 / (1 - IoU + v). No gradient flows through v / (1 - IoU +
    v), as in the paper.

    Args:
        boxes: [B, R, 4] predicted.
        targets: [B, R, 4] true; both are ignored where `box_mask` is False.
        box_mask: [B, R] boxes that count.

    Returns:
        At least 0 a box; ratios of boxes without area as for `giou_sum`.

    Raises:
        ValueError: If a shape or dtype is wrong.

    Reference:
        Zheng et al., Distance-IoU Loss, 2020, section 3.3. arXiv:1911.08287.
    """
    a, b, mask = _prepare(boxes, targets, box_mask)
    iou, _ = _iou(a, b)
    apart = 4 / math.pi**2 * (_angle(a) - _angle(b)) ** 2
    share = jax.lax.stop_gradient(_ratio(apart, 1 - iou + apart))
    return _sum(1 - iou + _distance(a, b) + share * apart, mask)


def _prepare(
    boxes: Boxes, targets: Boxes, box_mask: BoxMask
) -> tuple[jax.Array, jax.Array, Array]:
    """Boxes as floats [B, R, 4], 0 where they do not count; and the mask."""
    checks.shapes(
        boxes=(boxes, "B R 4"), targets=(targets, "B R 4"), box_mask=(box_mask, "B R")
    )
    mask = checks.as_mask("box_mask", box_mask)
    a, b = (
        jnp.where(mask[..., None], checks.as_floats(name, x), 0)
        for name, x in (("boxes", boxes), ("targets", targets))
    )
    return a, b, mask


def _sum(values: jax.Array, mask: Array) -> Sum:
    total = jnp.sum(jnp.where(mask, values, 0), axis=1)
    return Sum(total, jnp.sum(mask, axis=1, dtype=values.dtype))


def _area(boxes: jax.Array) -> jax.Array:
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def _iou(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """IoU and union, box by box."""
    corners = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    shared = _area(jnp.concatenate(corners, axis=-1))
    union = _area(a) + _area(b) - shared
    return _ratio(shared, union), union


def _around(a: jax.Array, b: jax.Array) -> jax.Array:
    corners = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate(corners, axis=-1)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared distance of the centers, over that of the corners of the box around."""
    centers = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    around = _around(a, b)
    diagonal = jnp.sum((around[..., 2:] - around[..., :2]) ** 2, axis=-1)
    return _ratio(jnp.sum(centers**2, axis=-1), diagonal)


def _angle(boxes: jax.Array) -> jax.Array:
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    # The gradient of arctan2 at (0, 0) is NaN.
    some = (size[..., 0] > 0) | (size[..., 1] > 0)
    width, height = (jnp.where(some, size[..., i], 1) for i in (0, 1))
    return jnp.where(some, jnp.arctan2(width, height), 0)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Quotient, 0 where the divisor is 0; NaN stays NaN."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
