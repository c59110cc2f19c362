"""The five losses of Mask R-CNN, for sampled predictions and targets.

Each returns the sum over the entries of an image and the number of entries.
`instance.py` normalizes the sums to losses.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.losses.common import binary_cross_entropy
from segjax.ops import checks
from segjax.typing import Array, PerExample

BETA = 1 / 9
"""Where smooth L1 changes from quadratic to linear, in units of encoded boxes."""


MaskTargets = Bool[Array, "b p m m"] | Integer[Array, "b p m m"]


class Sum(NamedTuple):
    """A loss before it is normalized.

    Attributes:
        total: [B] summed over the entries of an image; 0 where there are none.
        count: [B] entries, in the dtype of `total`.
    """

    total: PerExample
    count: PerExample


def objectness_sum(
    logits: Float[Array, "b a"],
    positive: Bool[Array, "b a"] | Integer[Array, "b a"],
    negative: Bool[Array, "b a"] | Integer[Array, "b a"],
) -> Sum:
    """Binary cross-entropy of the objectness of the sampled anchors.

    Args:
        logits: [B, A].
        positive: [B, A] anchors sampled as objects.
        negative: [B, A] anchors sampled as background; other anchors are ignored.

    Returns:
        Nats, over the sampled anchors.
    """
    checks.shapes(
        logits=(logits, "B A"), positive=(positive, "B A"), negative=(negative, "B A")
    )
    positive, anchor_mask = _anchors(positive, negative)
    logits = _masked("logits", logits, anchor_mask)
    target = jnp.asarray(positive, logits.dtype)
    return _sum(binary_cross_entropy(logits, target), anchor_mask)


def rpn_box_sum(
    deltas: Float[Array, "b a 4"],
    targets: Float[Array, "b a 4"],
    positive: Bool[Array, "b a"] | Integer[Array, "b a"],
    negative: Bool[Array, "b a"] | Integer[Array, "b a"],
) -> Sum:
    """Smooth L1 of the boxes of positive anchors, over all sampled anchors.

    Args:
        deltas: [B, A, 4] predicted (dx, dy, dw, dh).
        targets: [B, A, 4] from the anchor to its object; ignored for other anchors.
        positive: [B, A] anchors sampled as objects.
        negative: [B, A] anchors sampled as background; these only add to the count.

    Returns:
        Summed over the four numbers of a box.
    """
    checks.shapes(
        deltas=(deltas, "B A 4"),
        targets=(targets, "B A 4"),
        positive=(positive, "B A"),
        negative=(negative, "B A"),
    )
    positive, anchor_mask = _anchors(positive, negative)
    apart = _masked("deltas", deltas, positive) - _masked("targets", targets, positive)
    total = jnp.sum(_smooth_l1(apart), axis=-1)
    return Sum(_sum(total, positive).total, _sum(total, anchor_mask).count)


def class_sum(
    logits: Float[Array, "b r c"],
    targets: Integer[Array, "b r"],
    proposal_mask: Bool[Array, "b r"] | Integer[Array, "b r"],
) -> Sum:
    """Cross-entropy of the sampled proposals.

    Args:
        logits: [B, R, C], background first.
        targets: [B, R] in [0, C); ignored in empty slots.
        proposal_mask: [B, R] slots that hold a proposal.

    Returns:
        Nats, over the sampled proposals.
    """
    checks.shapes(
        logits=(logits, "B R C"),
        targets=(targets, "B R"),
        proposal_mask=(proposal_mask, "B R"),
    )
    proposal_mask = checks.as_mask("proposal_mask", proposal_mask)
    targets = checks.as_class_ids(
        "targets", targets, num_classes=logits.shape[2], valid=proposal_mask
    )
    log_p = jax.nn.log_softmax(_masked("logits", logits, proposal_mask))
    return _sum(-_of_class(log_p, jnp.where(proposal_mask, targets, 0)), proposal_mask)


def box_sum(
    deltas: Float[Array, "b r c 4"],
    targets: Float[Array, "b r 4"],
    classes: Integer[Array, "b r"],
    proposal_mask: Bool[Array, "b r"] | Integer[Array, "b r"],
) -> Sum:
    """Smooth L1 of the boxes of positive proposals, over all sampled proposals.

    Args:
        deltas: [B, R, C, 4] predicted (dx, dy, dw, dh), one box per class.
        targets: [B, R, 4] from the proposal to its object; ignored elsewhere.
        classes: [B, R] class of the object, which selects the box: in [1, C), or 0 for
            background.
        proposal_mask: [B, R] slots that hold a proposal.

    Returns:
        Summed over the four numbers of a box.
    """
    checks.shapes(
        deltas=(deltas, "B R C 4"),
        targets=(targets, "B R 4"),
        classes=(classes, "B R"),
        proposal_mask=(proposal_mask, "B R"),
    )
    proposal_mask = checks.as_mask("proposal_mask", proposal_mask)
    classes = checks.as_class_ids(
        "classes", classes, num_classes=deltas.shape[2], valid=proposal_mask
    )
    objects = proposal_mask & (classes > 0)
    own = _of_class(deltas, jnp.where(objects, classes, 0))
    apart = _masked("deltas", own, objects) - _masked("targets", targets, objects)
    total = jnp.sum(_smooth_l1(apart), axis=-1)
    return Sum(_sum(total, objects).total, _sum(total, proposal_mask).count)


def mask_sum(
    logits: Float[Array, "b p m m"],
    targets: Float[Array, "b p m m"] | MaskTargets,
    proposal_mask: Bool[Array, "b p"] | Integer[Array, "b p"],
) -> Sum:
    """Binary cross-entropy of the masks, each averaged over its pixels.

    Args:
        logits: [B, P, M, M], the mask of each proposal's target class.
        targets: [B, P, M, M] in [0, 1], or masks of bool or integers (not 0 is True);
            ignored in empty slots.
        proposal_mask: [B, P] slots whose proposal holds an object.

    Returns:
        Nats, over the sampled masks.
    """
    checks.shapes(
        logits=(logits, "B P M M"),
        targets=(targets, "B P M M"),
        proposal_mask=(proposal_mask, "B P"),
    )
    proposal_mask = checks.as_mask("proposal_mask", proposal_mask)
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        targets = checks.as_mask("targets", targets).astype(logits.dtype)
    checks.in_range(
        "targets", targets, least=0, most=1, where=proposal_mask[..., None, None]
    )
    entropy = binary_cross_entropy(
        _masked("logits", logits, proposal_mask),
        _masked("targets", targets, proposal_mask),
    )
    return _sum(jnp.mean(entropy, axis=(2, 3)), proposal_mask)


def _anchors(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Positive anchors, and all sampled anchors."""
    positive = checks.as_mask("positive", positive)
    return positive, positive | checks.as_mask("negative", negative)


def _masked(name: str, values: Array, pixel_mask: Array) -> jax.Array:
    """Converts to at least float32, and sets values outside the mask to 0."""
    pixel_mask = pixel_mask.reshape(
        pixel_mask.shape + (1,) * (values.ndim - pixel_mask.ndim)
    )
    return jnp.where(pixel_mask, checks.as_floats(name, values), 0)


def _sum(values: jax.Array, pixel_mask: Array) -> Sum:
    total = jnp.sum(jnp.where(pixel_mask, values, 0), axis=1)
    return Sum(total, jnp.sum(pixel_mask, axis=1, dtype=values.dtype))


def _of_class(values: Array, classes: Array) -> jax.Array:
    """Selects the entry of each class: [B, R, C, ...] -> [B, R, ...]."""
    index = classes.reshape(classes.shape + (1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, index, axis=2)[:, :, 0]


def _smooth_l1(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.where(size < BETA, 0.5 / BETA * x**2, size - 0.5 * BETA)
