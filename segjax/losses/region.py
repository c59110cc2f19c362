"""Losses on the overlap of whole regions."""

import jax
import jax.numpy as jnp

from segjax.losses.common import Weights, as_weights, prepare
from segjax.typing import Labels, Logits, PerExample, Valid


def soft_dice(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the soft Dice overlap, averaged over classes.

    With softmax probability p and one-hot target t, summed over valid pixels,
    the loss of one class is

        1 - (2 * sum(p * t) + smooth) / (sum(p) + sum(t) + smooth)

    Args:
        logits: [B, H, W, C] unnormalised scores.
        labels: [B, H, W] class ids in [0, C); never read where not valid.
        valid: [B, H, W] True where a pixel counts.
        smooth: Added to both halves of the ratio, in pixels; above 0. A class
            that is absent from both sides scores exactly 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for 1 each. (0, 1, 1) leaves out the background.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If there is not one weight a class, or smooth is not above 0.

    Reference:
        Milletari et al., V-Net, 2016, section 3. arXiv:1606.04797. The paper
        squares p and t in the denominator; this is the unsquared variant.
    """
    if smooth <= 0:
        raise ValueError(
            f"soft_dice needs smooth above 0, got {smooth}. Without it a class that "
            f"is absent from both sides is 0 / 0; use 1e-5 for almost none."
        )
    logits, labels, counts = prepare(logits, labels, valid)
    num_classes = logits.shape[-1]
    weights = as_weights(class_weights, num_classes, logits.dtype)
    counts = counts[..., None]
    probs = jax.nn.softmax(logits) * counts
    target = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype) * counts
    overlap = jnp.sum(probs * target, axis=(1, 2))
    total = jnp.sum(probs + target, axis=(1, 2))
    loss = 1 - (2 * overlap + smooth) / (total + smooth)
    return jnp.sum(loss * weights[None, :], axis=-1) / jnp.sum(weights)
