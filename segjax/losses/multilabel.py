"""Sigmoid losses for multi-label segmentation, where classes may overlap.

They take `targets [B, H, W, C]` in place of labels. With one-hot targets they are the
one-vs-rest form of their softmax counterparts.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from segjax.errors import UserError
from segjax.losses.common import (
    Weights,
    binary_cross_entropy,
    mean_over_classes,
)
from segjax.ops import checks
from segjax.typing import Array, Logits, PerExample, Valid

Targets = Bool[Array, "b h w c"] | Integer[Array, "b h w c"] | Float[Array, "b h w c"]
"""True, 1 or an integer that is not 0 where a pixel has the class, which may have
several classes, or none."""


def sigmoid_cross_entropy(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    class_weights: Weights | None = None,
) -> PerExample:
    """Binary cross-entropy of each class, averaged over valid pixels and classes.

    With sigmoid probability p and target t, the loss of a pixel and class is

        -t * log(p) - (1 - t) * log(1 - p)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] in [0, 1]; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] nats, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries.

    Reference:
        The mean of `optax.sigmoid_binary_cross_entropy`.
    """
    logits, targets, pixel_mask = prepare_targets(logits, targets, valid)
    return _mean(binary_cross_entropy(logits, targets), pixel_mask, class_weights)


def sigmoid_focal(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """Focal loss of each class, averaged over valid pixels and classes.

    With q = p for positive targets and q = 1 - p for negative ones, p the sigmoid
    probability, the loss of a pixel and class is

        -alpha * (1 - q)**gamma * log(q)        where the target is 1
        -(1 - alpha) * (1 - q)**gamma * log(q)  where it is 0

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] 0 or 1; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        alpha: Weight of positives, in [0, 1]; 1/2 weighs positives and negatives
            equally.
        gamma: Focusing exponent, at least 0; 0 is cross-entropy weighted by alpha.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] nats, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or alpha or gamma is out
            of range.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, 2017, section 3.
        arXiv:1708.02002. The paper divides by the number of positive boxes; this
        divides by the number of valid pixels.
    """
    if not (0 <= gamma < math.inf and 0 <= alpha <= 1):
        raise UserError(
            f"sigmoid_focal needs gamma of at least 0 and alpha in [0, 1], got "
            f"{gamma} and {alpha}. The paper's are 2 and 0.25."
        )
    logits, targets, pixel_mask = prepare_targets(logits, targets, valid)
    cost = binary_cross_entropy(logits, targets)
    # Above 0, because a power below 1 has no finite gradient at 0.
    wrong = jnp.maximum(1 - jnp.exp(-cost), jnp.finfo(cost.dtype).tiny)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return _mean(weight * wrong**gamma * cost, pixel_mask, class_weights)


def prepare_targets(
    logits: Logits, targets: Targets, valid: Valid
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Converts to at least float32 and sets invalid pixels to 0.

    Raises:
        ValueError: If a shape or dtype is wrong; outside `jit`, also if a target is not
            in [0, 1] at a valid pixel.
    """
    checks.shapes(
        logits=(logits, "B H W C"),
        targets=(targets, "B H W C"),
        valid=(valid, "B H W"),
    )
    logits, valid = checks.as_floats("logits", logits), checks.as_mask("valid", valid)
    if not logits.shape[-1]:
        raise UserError("logits needs a channel for each class, got none.")
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        targets = checks.as_mask("targets", targets)
    checks.in_range("targets", targets, least=0, most=1, where=valid[..., None])
    pixel_mask = jnp.asarray(valid)[..., None]
    logits = jnp.where(pixel_mask, logits, 0)
    targets = jnp.where(pixel_mask, jnp.asarray(targets, logits.dtype), 0)
    return logits, targets, jnp.asarray(valid, logits.dtype)


def _mean(
    cost: jax.Array, pixel_mask: jax.Array, weights: Weights | None
) -> PerExample:
    num_valid = jnp.maximum(jnp.sum(pixel_mask, axis=(1, 2)), 1)
    cost = jnp.sum(cost * pixel_mask[..., None], axis=(1, 2)) / num_valid[:, None]
    return mean_over_classes(cost, weights)
