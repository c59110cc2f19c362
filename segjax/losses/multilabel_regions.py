"""Sigmoid forms of the region losses, for classes that may overlap.

With sigmoid probability p and target t of a class, the sums over an image's valid
pixels are

    TP = sum(p * t)    FP = sum(p * (1 - t))    FN = sum((1 - p) * t)
"""

import jax
import jax.numpy as jnp

from segjax.losses.asymmetric import check_alpha_beta, tversky_of_counts
from segjax.losses.common import Weights, check_smooth, mean_over_classes
from segjax.losses.lovasz import lovasz_of_errors
from segjax.losses.multilabel import Targets, prepare_targets
from segjax.losses.region import matthews_of_counts
from segjax.typing import Logits, PerExample, Valid


def sigmoid_dice(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the soft Dice overlap of sigmoid probabilities, over classes.

    The loss of one class is

        1 - (2 * sum(p * t) + smooth) / (sum(p) + sum(t) + smooth)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] in [0, 1]; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: Added to numerator and denominator, in pixels; above 0. A class
            that is absent from labels and prediction has a loss of exactly 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or smooth is not above 0.

    Reference:
        Milletari et al., V-Net, 2016, section 3. arXiv:1606.04797. The paper squares p
        and t in the denominator; this does not.
    """
    check_smooth("sigmoid_dice", smooth)
    logits, targets, pixel_mask = prepare_targets(logits, targets, valid)
    probs = jax.nn.sigmoid(logits) * pixel_mask[..., None]
    overlap = jnp.sum(probs * targets, axis=(1, 2))
    total = jnp.sum(probs + targets, axis=(1, 2))
    loss = (total - 2 * overlap) / (total + smooth)
    return mean_over_classes(loss, class_weights)


def sigmoid_jaccard(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the soft intersection over union of sigmoid probabilities.

    The loss of one class is that of `jaccard`.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] in [0, 1]; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: In pixels; above 0. A class that is absent from targets and prediction
            has loss 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or smooth is not above 0.
    """
    check_smooth("sigmoid_jaccard", smooth)
    hits, extra, missed, _ = _counts(logits, targets, valid)
    loss = tversky_of_counts(hits, extra, missed, 1.0, 1.0, smooth)
    return mean_over_classes(loss, class_weights)


def sigmoid_tversky(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the Tversky index of sigmoid probabilities, averaged over classes.

    The loss of one class is that of `tversky`.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] in [0, 1]; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0; higher favors recall.
        smooth: In pixels; above 0. A class that is absent from targets and prediction
            has loss 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, alpha or beta is negative,
            or smooth is not above 0.
    """
    check_smooth("sigmoid_tversky", smooth)
    check_alpha_beta(alpha, beta)
    hits, extra, missed, _ = _counts(logits, targets, valid)
    loss = tversky_of_counts(hits, extra, missed, alpha, beta, smooth)
    return mean_over_classes(loss, class_weights)


def sigmoid_matthews(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus Matthews' correlation of targets and sigmoid probabilities.

    The loss of one class is that of `matthews`.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] in [0, 1]; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: In pixels; above 0. A class that is absent from targets and prediction
            has loss 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 2); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or smooth is not above 0.
    """
    check_smooth("sigmoid_matthews", smooth)
    hits, extra, missed, num_valid = _counts(logits, targets, valid)
    loss = matthews_of_counts(hits, extra, missed, num_valid[:, None], smooth)
    return mean_over_classes(loss, class_weights)


def sigmoid_lovasz_hinge(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    class_weights: Weights | None = None,
) -> PerExample:
    """Lovász extension of each class's Jaccard loss, over hinge errors.

    With the logit x and the target's sign s, the error of a pixel is max(0, 1 - s * x);
    see `lovasz_hinge`, which has the margin of two logits in place of x.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] 0 or 1; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss, at least 0; 0 if s * x is 1 or more everywhere, or every pixel is
        invalid. A class without pixels has its largest error.

    Raises:
        ValueError: If class_weights does not have C entries.
    """
    logits, targets, pixel_mask = prepare_targets(logits, targets, valid)
    errors = jax.nn.relu(1 - (2 * targets - 1) * logits) * pixel_mask[..., None]
    loss = lovasz_of_errors(errors, targets, pixel_mask)
    return mean_over_classes(loss, class_weights)


def _counts(
    logits: Logits, targets: Targets, valid: Valid
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """TP, FP and FN, [B, C] each, and the number [B] of valid pixels."""
    logits, targets, pixel_mask = prepare_targets(logits, targets, valid)
    mask = pixel_mask[..., None]
    # 1 - p by the sigmoid of -x, which is accurate near 0.
    probs, rest = jax.nn.sigmoid(logits) * mask, jax.nn.sigmoid(-logits) * mask
    counts = probs * targets, probs * (1 - targets), rest * targets
    hits, extra, missed = (jnp.sum(x, axis=(1, 2)) for x in counts)
    return hits, extra, missed, jnp.sum(pixel_mask, axis=(1, 2))
