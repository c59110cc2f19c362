"""Losses on the connectivity of thin structures."""

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.losses.common import (
    Weights,
    check_smooth,
    mean_over_classes,
    one_hot,
    prepare,
)
from segjax.ops import checks
from segjax.typing import Labels, Logits, PerExample, Valid


def soft_cldice(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    iterations: int = 3,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the centerline Dice, for vessels, roads and other thin structures.

    With softmax probability p, one-hot target t and soft skeletons S, a class has

        precision = (sum(S(p) * t) + smooth) / (sum(S(p)) + smooth)
        recall = (sum(S(t) * p) + smooth) / (sum(S(t)) + smooth)

    and a loss of 1 - 2 * precision * recall / (precision + recall). The paper adds soft
    Dice, since a center line does not determine the width:

        losses.semantic(dice=(0.5, losses.soft_dice), cldice=(0.5, losses.soft_cldice))

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss. Invalid pixels are
            outside all structures.
        iterations: At least the radius in pixels of the thickest structure; 1 or more.
        smooth: In pixels; above 0. A class that is absent from labels and prediction
            has a loss of exactly 0, and so does one that fills the image in both, since
            it has no center line.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights. The paper has (0, 1).

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, iterations is below 1, or
            smooth is not above 0.

    Reference:
        Shit et al., clDice - a Novel Topology-Preserving Loss Function for Tubular
        Structure Segmentation, 2021, section 3. arXiv:2003.07311.
    """
    check_smooth("soft_cldice", smooth)
    checks.whole_number("soft_cldice", "iterations", iterations, least=1)
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    target = one_hot(labels, pixel_mask, logits.shape[-1])
    probs = jax.nn.softmax(logits) * pixel_mask[..., None]
    precision = _center_line_overlap(probs, target, iterations, smooth)
    recall = _center_line_overlap(target, probs, iterations, smooth)
    dice = 2 * precision * recall / (precision + recall)
    return mean_over_classes(1 - dice, class_weights)


def _center_line_overlap(
    thin: jax.Array, wide: jax.Array, iterations: int, smooth: float
) -> jax.Array:
    """Fraction [B, C] of the center lines of one that lies within the other."""
    lines = ops.soft_skeleton(thin, iterations=iterations)
    within = jnp.sum(lines * wide, axis=(1, 2))
    return (within + smooth) / (jnp.sum(lines, axis=(1, 2)) + smooth)
