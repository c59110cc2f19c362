"""Losses that weigh false positives and false negatives differently.

TP, FP and FN are soft counts, as in `region.py`.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from segjax.errors import UserError
from segjax.losses.common import (
    Weights,
    as_weights,
    check_smooth,
    mean_over_classes,
    mean_over_valid,
    one_hot,
    prepare,
    region_counts,
    soft_counts,
    softmax_and_log_p,
)
from segjax.typing import Array, Labels, Logits, PerExample, Valid


def tversky(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """One minus the Tversky index, averaged over classes.

    The loss of one class is

        1 - (TP + smooth) / (TP + alpha * FP + beta * FN + smooth)

    Equals soft Dice with twice the `smooth` for alpha = beta = 1/2, and Jaccard for
    alpha = beta = 1.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0; higher favors recall.
        smooth: Added to numerator and denominator, in pixels; above 0. A class
            that is absent from labels and prediction has a loss of exactly 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, alpha or beta is negative,
            or smooth is not above 0.

    Reference:
        Salehi et al., Tversky loss function for image segmentation using 3D fully
        convolutional deep networks, 2017, section 2.2. arXiv:1706.05721. The paper
        has two classes and no smooth.
    """
    check_smooth("tversky", smooth)
    check_alpha_beta(alpha, beta)
    soft_counts = region_counts(logits, labels, valid)
    loss = tversky_of_counts(*soft_counts, alpha, beta, smooth)
    return mean_over_classes(loss, class_weights)


def focal_tversky(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    gamma: float = 4 / 3,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """Tversky loss of each class to the power 1 / gamma, averaged.

    With gamma above 1, classes that are nearly right keep a large gradient.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        gamma: Above 0; the paper's range is 1 to 3, and 1 is `tversky`.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0.
        smooth: As in `tversky`, in pixels; above 0. A class that is absent from labels
            and prediction has a loss of exactly 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, alpha or beta is negative,
            or gamma or smooth is not above 0.

    Reference:
        Abraham and Khan, A Novel Focal Tversky Loss Function with Improved
        Attention U-Net for Lesion Segmentation, 2018, section 2.
        arXiv:1810.07842. The paper sums over classes; this is the mean. Its alpha is
        the weight of false negatives, our beta.
    """
    check_smooth("focal_tversky", smooth)
    check_alpha_beta(alpha, beta)
    if not 0 < gamma < math.inf:
        raise UserError(
            f"focal_tversky needs gamma above 0, got {gamma}. Use 1 for tversky."
        )
    soft_counts = region_counts(logits, labels, valid)
    loss = tversky_of_counts(*soft_counts, alpha, beta, smooth)
    return mean_over_classes(_power(loss, 1 / gamma), class_weights)


def asymmetric_unified_focal(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    rare: Sequence[bool] | Bool[Array, " c"] | None = None,
    weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    smooth: float = 1.0,
) -> PerExample:
    """Focal cross-entropy plus focal Tversky loss, with rare classes at full weight.

    With softmax probability p of the label, TI = (TP + smooth) / (TP + smooth +
    delta * FN + (1 - delta) * FP), the losses of a pixel and of a class are

        rare:   delta * -log(p)                           (1 - TI)**(1 - gamma)
        common: (1 - delta) * (1 - p)**gamma * -log(p)    1 - TI

    The loss is weight * mean over pixels + (1 - weight) * mean over classes. Easy
    pixels of common classes are suppressed, those of rare classes are not.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        rare: [C] True for a rare class; None for all classes but 0.
        weight: Weight of the cross-entropy term, in [0, 1] (the paper's lambda).
        delta: Weight of rare pixels and of false negatives, in [0, 1].
        gamma: Focusing exponent, in [0, 1).
        smooth: In pixels; above 0. A class that is absent from labels and prediction
            contributes 0.

    Returns:
        [B] at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If `rare` does not have C entries, or a number is out of range.

    Reference:
        Yeung et al., Unified Focal loss: Generalizing Dice and cross entropy-based
        losses to handle class imbalanced medical image segmentation, 2021, section
        2.5. arXiv:2102.04525. The paper sums the Tversky term over classes; this is the
        mean, as in the authors' code.
    """
    check_smooth("asymmetric_unified_focal", smooth)
    _check_unified("asymmetric_unified_focal", weight, delta, gamma)

    def cost(log_p, rare):
        common = (1 - delta) * _focal_cost(log_p, gamma)
        return jnp.where(rare, -delta * log_p, common)

    def power(loss, rare):
        return jnp.where(rare, _power(loss, 1 - gamma), loss)

    return _unified(logits, labels, valid, rare, weight, delta, smooth, cost, power)


def symmetric_unified_focal(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    rare: Sequence[bool] | Bool[Array, " c"] | None = None,
    weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    smooth: float = 1.0,
) -> PerExample:
    """Focal cross-entropy plus focal Tversky loss, with focus on all classes.

    With the letters of `asymmetric_unified_focal`, the losses of a pixel and of a class
    are

        rare:   delta * (1 - p)**gamma * -log(p)          (1 - TI)**(1 - gamma)
        common: (1 - delta) * (1 - p)**gamma * -log(p)    (1 - TI)**(1 - gamma)

    The loss is weight * mean over pixels + (1 - weight) * mean over classes.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        rare: [C] True for a rare class; None for all classes but 0.
        weight: Weight of the cross-entropy term, in [0, 1] (the paper's lambda).
        delta: Weight of rare pixels and of false negatives, in [0, 1].
        gamma: Focusing exponent, in [0, 1).
        smooth: In pixels; above 0. A class that is absent from labels and prediction
            contributes 0.

    Returns:
        [B] at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If `rare` does not have C entries, or a number is out of range.

    Reference:
        Yeung et al., Unified Focal loss, 2021, section 2.5. arXiv:2102.04525. The
        exponents are those of the authors' code; the Tversky term is a mean.
    """
    check_smooth("symmetric_unified_focal", smooth)
    _check_unified("symmetric_unified_focal", weight, delta, gamma)

    def cost(log_p, rare):
        return jnp.where(rare, delta, 1 - delta) * _focal_cost(log_p, gamma)

    def power(loss, rare):
        del rare
        return _power(loss, 1 - gamma)

    return _unified(logits, labels, valid, rare, weight, delta, smooth, cost, power)


def _unified(logits, labels, valid, rare, weight, delta, smooth, cost, power):
    """The sum of both terms; `cost` of log_p [B, H, W] and rare, and of 1 - TI.

    Args:
        logits: As the public functions have it, and so are labels to smooth.
        labels: [B, H, W].
        valid: [B, H, W].
        rare: [C] or None.
        weight: Of the cross-entropy term.
        delta: Weight of rare pixels and of false negatives.
        smooth: In pixels.
        cost: `(log_p, rare) -> cost`, all [B, H, W].
        power: `(1 - TI, rare) -> loss`, [B, C], [1, C] and [B, C].
    """
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    num_classes = logits.shape[-1]
    if rare is None:
        rare = [index > 0 for index in range(num_classes)]
    is_rare = as_weights(np.asarray(rare), num_classes, logits.dtype, name="rare") > 0
    target = one_hot(labels, pixel_mask, num_classes)
    probs, log_p = softmax_and_log_p(logits, target)
    pixels = mean_over_valid(cost(log_p, jnp.take(is_rare, labels)), pixel_mask)
    loss = tversky_of_counts(*soft_counts(probs, target), 1 - delta, delta, smooth)
    regions = jnp.mean(power(loss, is_rare[None, :]), axis=-1)
    return weight * pixels + (1 - weight) * regions


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _focal_cost(log_p: jax.Array, gamma: float) -> jax.Array:
    """-(1 - p)**gamma * log(p) of probabilities with logarithm log_p.

    The gradient is written out because the one that JAX derives is slow on CPUs.
    """
    return _cost_and_slope(log_p, gamma)[0]


def _cost_and_slope(log_p, gamma):
    p = jnp.exp(log_p)
    focus = _power(1 - p, gamma)
    # d focus / d log_p = -gamma * (1 - p)**(gamma - 1) * p, and log_p is 0 at p = 1.
    bend = gamma * focus * p * log_p / jnp.where(p < 1, 1 - p, 1)
    return -focus * log_p, bend - focus


@_focal_cost.defjvp
def _focal_cost_jvp(gamma, primals, tangents):
    cost, slope = _cost_and_slope(primals[0], gamma)
    return cost, slope * tangents[0]


def tversky_of_counts(hits, extra, missed, alpha, beta, smooth):
    """[B, C]: one minus the Tversky index of each class."""
    errors = alpha * extra + beta * missed
    return errors / (hits + errors + smooth)


def _power(x: jax.Array, exponent: float) -> jax.Array:
    """Raises x, at least 0, to a power; value and gradient are 0 where x is 0."""
    tiny = jnp.finfo(x.dtype).tiny  # A power below 1 has no finite gradient at 0.
    # XLA vectorizes exp and log on CPUs, but not `**`.
    power = jnp.exp(exponent * jnp.log(jnp.maximum(x, tiny)))
    return jnp.where(x <= tiny, 0, power)  # NaN stays NaN.


def check_alpha_beta(alpha: float, beta: float) -> None:
    """Checks the weights of false positives and false negatives."""
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
        raise UserError(
            f"tversky needs alpha and beta of at least 0, got alpha={alpha} and "
            f"beta={beta}. Use 0.5 and 0.5 for Dice."
        )


def _check_unified(name: str, weight: float, delta: float, gamma: float) -> None:
    if not (0 <= weight <= 1 and 0 <= delta <= 1 and 0 <= gamma < 1):
        raise UserError(
            f"{name} needs weight and delta in [0, 1] and gamma in "
            f"[0, 1), got {weight}, {delta} and {gamma}. The paper's are 0.5, 0.6 "
            f"and 0.5."
        )
