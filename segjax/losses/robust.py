"""Cross-entropies that weigh probable labels differently, and soft labels."""

import jax
import jax.numpy as jnp

from segjax.errors import UserError
from segjax.losses.common import (
    Weights,
    check_smooth,
    mean_over_classes,
    mean_over_valid,
    of_label,
    prepare,
)
from segjax.losses.multilabel import Targets, prepare_targets
from segjax.ops import checks
from segjax.typing import Labels, Logits, PerExample, Valid

_SUM_TOLERANCE = 1e-2
"""Of the sum of soft labels, which may be stored in 8 bits."""


def poly_cross_entropy(
    logits: Logits, labels: Labels, valid: Valid, *, epsilon: float = 1.0
) -> PerExample:
    """Poly-1 loss: cross-entropy plus a multiple of the label's improbability.

    With softmax probability p of the label, the loss of a pixel is

        -log(p) + epsilon * (1 - p)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        epsilon: At least 0, which is cross-entropy; the paper has 1 or 2.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If epsilon is negative.

    Reference:
        Leng et al., PolyLoss: A Polynomial Expansion Perspective of Classification
        Loss Functions, 2022, section 4. arXiv:2204.12511.
    """
    checks.number("poly_cross_entropy", "epsilon", epsilon, least=0)
    log_p, pixel_mask = _log_p_of_labels(logits, labels, valid)
    return mean_over_valid(-log_p - epsilon * jnp.expm1(log_p), pixel_mask)


def symmetric_cross_entropy(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = 4.0,
) -> PerExample:
    """Cross-entropy plus reverse cross-entropy, for labels with errors.

    The reverse one exchanges labels and probabilities; its log(0) is set to a constant
    -A. With softmax probability p of the label, the loss of a pixel is

        -alpha * log(p) + beta * A * (1 - p)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        alpha: Weight of the cross-entropy, at least 0.
        beta: Weight of the reverse cross-entropy, at least 0.
        log_zero: A, at least 0; the paper has 4 (its A is -4).

    Returns:
        [B] at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If a number is negative.

    Reference:
        Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels,
        2019, section 4. arXiv:1908.06112. The defaults are those for CIFAR-10.
    """
    numbers = {"alpha": alpha, "beta": beta, "log_zero": log_zero}
    for name, value in numbers.items():
        checks.number("symmetric_cross_entropy", name, value, least=0)
    log_p, pixel_mask = _log_p_of_labels(logits, labels, valid)
    cost = -alpha * log_p - beta * log_zero * jnp.expm1(log_p)
    return mean_over_valid(cost, pixel_mask)


def soft_bootstrap_cross_entropy(
    logits: Logits, labels: Labels, valid: Valid, *, beta: float = 0.95
) -> PerExample:
    """Cross-entropy of labels mixed with the predicted probabilities.

    With softmax probabilities q and one-hot target t, the loss of a pixel is

        -sum_c (beta * t[c] + (1 - beta) * q[c]) * log(q[c])

    The second part is the entropy of the prediction, so that a confident prediction
    outweighs a label that contradicts it.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        beta: Weight of the labels, in [0, 1]; 1 is cross-entropy.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If beta is not in [0, 1].

    Reference:
        Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping,
        2014, equation 6. arXiv:1412.6596. Gradients flow through both q, as there.
    """
    checks.number("soft_bootstrap_cross_entropy", "beta", beta, least=0, most=1)
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    log_q = jax.nn.log_softmax(logits)
    # 0 * -inf of a class that is masked out is NaN.
    finite = jnp.where(log_q == -jnp.inf, 0, log_q)
    entropy = -jnp.sum(jnp.exp(log_q) * finite, axis=-1)
    cost = -beta * of_label(log_q, labels) + (1 - beta) * entropy
    return mean_over_valid(cost, pixel_mask)


def hard_bootstrap_cross_entropy(
    logits: Logits, labels: Labels, valid: Valid, *, beta: float = 0.8
) -> PerExample:
    """Cross-entropy of labels mixed with the predicted class.

    With softmax probabilities q, label y and most probable class z, the loss of a pixel
    is

        -beta * log(q[y]) - (1 - beta) * log(q[z])

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        beta: Weight of the labels, in [0, 1]; 1 is cross-entropy.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If beta is not in [0, 1].

    Reference:
        Reed et al., 2014, equation 7. arXiv:1412.6596.
    """
    checks.number("hard_bootstrap_cross_entropy", "beta", beta, least=0, most=1)
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    log_q = jax.nn.log_softmax(logits)
    cost = -beta * of_label(log_q, labels) - (1 - beta) * jnp.max(log_q, axis=-1)
    return mean_over_valid(cost, pixel_mask)


def soft_label_cross_entropy(
    logits: Logits, targets: Targets, valid: Valid
) -> PerExample:
    """Softmax cross-entropy of soft labels, such as the mean of several raters.

    With log-softmax l and target t, the loss of a pixel is -sum_c t[c] * l[c]. It is
    least where the probabilities equal the target, and there it is the target's
    entropy. With one-hot targets it equals `cross_entropy`.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] probabilities that sum to 1 over the classes; ignored
            where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: Outside `jit`, if the targets of a valid pixel do not sum to 1.

    Reference:
        The mean of `optax.softmax_cross_entropy`.
    """
    logits, targets, pixel_mask = _prepare_soft(logits, targets, valid)
    log_p = jax.nn.log_softmax(logits)
    # Not a bare product, because 0 * -inf of a class that is masked out is NaN.
    cost = -jnp.sum(jnp.where(targets == 0, 0, targets * log_p), axis=-1)
    return mean_over_valid(cost, pixel_mask)


def soft_label_dice(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    *,
    smooth: float = 1.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """Dice loss of soft labels, which is least where probabilities equal the target.

    With softmax probability p and target t, the loss of a class is

        sum(abs(p - t)) / (sum(p) + sum(t) + smooth)

    With one-hot targets it equals `soft_dice`. That one, with soft targets in place of
    one-hot ones, is least for probabilities of 0 and 1.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        targets: [B, H, W, C] probabilities that sum to 1 over the classes; ignored
            where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        smooth: Added to the denominator, in pixels; above 0. A class that is absent
            from labels and prediction has loss 0.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, smooth is not above 0, or,
            outside `jit`, the targets of a valid pixel do not sum to 1.

    Reference:
        Wang et al., Dice Semimetric Losses: Optimizing the Dice Score with Soft
        Labels, 2023, section 2.2. arXiv:2303.16296. The paper has no smooth.
    """
    check_smooth("soft_label_dice", smooth)
    logits, targets, pixel_mask = _prepare_soft(logits, targets, valid)
    probs = jax.nn.softmax(logits) * pixel_mask[..., None]
    errors = jnp.sum(jnp.abs(probs - targets), axis=(1, 2))
    total = jnp.sum(probs + targets, axis=(1, 2))
    return mean_over_classes(errors / (total + smooth), class_weights)


def _log_p_of_labels(
    logits: Logits, labels: Labels, valid: Valid
) -> tuple[jax.Array, jax.Array]:
    """[B, H, W] each: log-probability of the label, and 1 where valid."""
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    return of_label(jax.nn.log_softmax(logits), labels), pixel_mask


def _prepare_soft(
    logits: Logits, targets: Targets, valid: Valid
) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits, targets, pixel_mask = prepare_targets(logits, targets, valid)
    if checks.is_known(targets):
        sums = jnp.sum(targets, axis=-1)
        wrong = (jnp.abs(sums - 1) > _SUM_TOLERANCE) & (pixel_mask > 0)
        if wrong.any():
            raise UserError(
                f"targets needs probabilities that sum to 1 over the classes where "
                f"valid, got a sum of {float(sums[wrong][0]):g} at {int(wrong.sum())} "
                f"pixels. Use the sigmoid losses for classes that overlap."
            )
    return logits, targets, pixel_mask
