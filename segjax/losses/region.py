"""Losses on the overlap of regions, computed from soft counts of pixels.

With softmax probability p and one-hot target t, the sums over an image's valid
pixels are, for each class,

    TP = sum(p * t)    FP = sum(p * (1 - t))    FN = sum((1 - p) * t)
"""

import jax
import jax.numpy as jnp

from segjax.losses.common import (
    Weights,
    check_smooth,
    mean_over_classes,
    region_counts,
)
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
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: Added to numerator and denominator, in pixels; above 0. A class
            that is absent from labels and prediction has a loss of exactly 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights. (0, 1, 1) excludes the background.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or smooth is not above 0.

    Reference:
        Milletari et al., V-Net, 2016, section 3. arXiv:1606.04797. The paper
        squares p and t in the denominator; this is the unsquared variant.
    """
    check_smooth("soft_dice", smooth)
    hits, extra, missed = region_counts(logits, labels, valid)
    errors = extra + missed
    return mean_over_classes(errors / (2 * hits + errors + smooth), class_weights)


def log_cosh_dice(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """log(cosh(soft Dice loss)), which is quadratic near 0.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: As in `soft_dice`, in pixels; above 0. A class that is absent from
            labels and prediction has loss 0.
        class_weights: [C] weights of the mean over classes inside the cosh, at
            least 0 and not all 0; None for equal weights.

    Returns:
        [B] loss in [0, log(cosh(1))), so below 0.434; 0 when every pixel is
        invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or smooth is not above 0.

    Reference:
        Jadon, A survey of loss functions for semantic segmentation, 2020,
        section II.N. arXiv:2006.14822. The paper has two classes.
    """
    check_smooth("log_cosh_dice", smooth)
    dice = soft_dice(logits, labels, valid, smooth=smooth, class_weights=class_weights)
    # cosh(x) - 1 = 2 sinh(x / 2)**2, which is accurate near 0.
    return jnp.log1p(2 * jnp.sinh(dice / 2) ** 2)


def generalized_dice(logits: Logits, labels: Labels, valid: Valid) -> PerExample:
    """Dice of all classes together, each weighted by its inverse squared size.

    With n the pixels of a class in the image and w = 1 / n**2,

        1 - 2 * sum_c w * TP / sum_c w * (2 * TP + FP + FN)

    As in the authors' code (NiftyNet), a class without pixels in the image has the
    largest weight of the classes with pixels. Predicting it increases the loss; if it
    is absent from labels and prediction it contributes 0.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.

    Returns:
        [B] loss in [0, 1]; 0 when every pixel is invalid.

    Reference:
        Sudre et al., Generalized Dice overlap as a deep learning loss function for
        highly unbalanced segmentations, 2017, section 2. arXiv:1707.03237.
    """
    hits, extra, missed = region_counts(logits, labels, valid)
    size = jax.lax.stop_gradient(hits + missed)
    # inf where the image has no valid pixel.
    smallest = jnp.min(jnp.where(size > 0, size, jnp.inf), axis=-1, keepdims=True)
    some = jnp.isfinite(smallest)
    # Weights in units of the largest, so that they do not overflow for large images.
    share = jnp.where(some, smallest, 1) / jnp.where(size > 0, size, 1)
    weights = jnp.where(size > 0, share, 1) ** 2
    errors = jnp.sum(weights * (extra + missed), axis=-1)
    total = 2 * jnp.sum(weights * hits, axis=-1) + errors
    return errors / jnp.where(some[:, 0], total, 1)


def jaccard(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the soft intersection over union, averaged over classes.

    The loss of one class is

        1 - (TP + smooth) / (TP + FP + FN + smooth)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
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
        Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks
        for Image Segmentation, 2016, section 2. The paper has one foreground class
        and no smooth.
    """
    check_smooth("jaccard", smooth)
    hits, extra, missed = region_counts(logits, labels, valid)
    errors = extra + missed
    return mean_over_classes(errors / (hits + errors + smooth), class_weights)


def matthews(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus Matthews' correlation of labels and prediction, averaged over classes.

    The loss of one class against the rest is

        1 - (TP * TN - FP * FN)
            / sqrt((TP + FP) * (TP + FN) * (TN + FP) * (TN + FN))

    with `smooth` added to TP and to TN. An image of a single class, whose correlation
    is 0 / 0, then has a loss that decreases as the prediction improves.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: In pixels; above 0. A class that is absent from labels and prediction
            has loss 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 2); above 1 for predictions worse than chance; 0 when every
        pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or smooth is not above 0.

    Reference:
        Abhishek and Hamarneh, Matthews Correlation Coefficient Loss for Deep
        Convolutional Networks, 2021, section 2. arXiv:2010.13454. The paper has one
        foreground class; with two classes both have the same loss, and their mean is
        the paper's loss.
    """
    check_smooth("matthews", smooth)
    hits, extra, missed = region_counts(logits, labels, valid)
    total = jnp.sum(hits + missed, axis=-1, keepdims=True)
    loss = matthews_of_counts(hits, extra, missed, total, smooth)
    return mean_over_classes(loss, class_weights)


def matthews_of_counts(
    hits: jax.Array,
    extra: jax.Array,
    missed: jax.Array,
    total: jax.Array,
    smooth: float,
) -> jax.Array:
    """One minus Matthews' correlation of each class, [B, C].

    Args:
        hits: [B, C] TP.
        extra: [B, C] FP.
        missed: [B, C] FN.
        total: [B, 1] valid pixels.
        smooth: In pixels.
    """
    rest = total - hits - extra - missed + smooth
    hits = hits + smooth
    # Fractions of the pixels, because the product of four counts may overflow.
    hits, extra, missed, rest = (
        x / (total + 2 * smooth) for x in (hits, extra, missed, rest)
    )
    spread = (hits + extra) * (hits + missed) * (rest + extra) * (rest + missed)
    correlation = (hits * rest - extra * missed) / jnp.sqrt(spread)
    return 1 - correlation
