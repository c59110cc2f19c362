"""Losses that average over pixels."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.errors import UserError
from segjax.losses.common import (
    Weights,
    as_weights,
    mean_over_valid,
    of_label,
    one_hot,
    prepare,
)
from segjax.ops import checks
from segjax.typing import Array, Labels, Logits, PerExample, Valid

PixelWeights = Float[Array, "b h w"]


def cross_entropy(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    class_weights: Weights | None = None,
    label_smoothing: float = 0.0,
    pixel_weights: PixelWeights | None = None,
) -> PerExample:
    """Softmax cross-entropy, averaged over the valid pixels of each image.

    With log-softmax l, label y, class weights w and smoothing e, the loss of a pixel is

        -(1 - e) * w[y] * l[y] - (e / C) * sum_c w[c] * l[c]

    as in PyTorch. The mean divides by the number of valid pixels, PyTorch's by the sum
    of w[y], so that weights cancel in an image of a single class. Here a pixel of class
    k has weight w[k] in any image, and larger weights give a larger loss. Without
    weights, or with all weights 1, the two agree.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        class_weights: [C] factors, at least 0; None for ones.
        label_smoothing: e in [0, 1), the fraction of the target that is spread evenly
            over all classes.
        pixel_weights: [B, H, W] factors of each pixel's loss, at least 0, such as
            `border_weights`; ignored where not valid. None for ones. The mean still
            divides by the number of valid pixels.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or label_smoothing is out
            of range.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, 2016, section 7
        (label smoothing). arXiv:1512.00567.
    """
    if not 0 <= label_smoothing < 1:
        raise UserError(
            f"label_smoothing needs a number in [0, 1), got {label_smoothing}. "
            f"Use 0 for none."
        )
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    num_classes = logits.shape[-1]
    log_p = jax.nn.log_softmax(logits)
    cost = -of_label(log_p, labels)
    if class_weights is not None:
        weights = as_weights(class_weights, num_classes, logits.dtype)
        weights = weights[None, None, None, :]
        cost = cost * of_label(weights, labels)
        # Not a bare product, because 0 * -inf of a class that is masked out is NaN.
        log_p = jnp.where(weights > 0, log_p * weights, 0)
    if label_smoothing:
        cost = (1 - label_smoothing) * cost - label_smoothing * jnp.mean(log_p, -1)
    if pixel_weights is not None:
        checks.shapes(labels=(labels, "B H W"), pixel_weights=(pixel_weights, "B H W"))
        pixel_weights = checks.as_floats("pixel_weights", pixel_weights)
        weight = jnp.where(pixel_mask > 0, pixel_weights, 0)
        cost = cost * weight.astype(cost.dtype)
    return mean_over_valid(cost, pixel_mask)


def balanced_cross_entropy(logits: Logits, labels: Labels, valid: Valid) -> PerExample:
    """Cross-entropy with equal weight for every class in the image.

    With K classes in the image's labels, n_c valid pixels of class c and softmax
    probability p of the label, the loss is the mean over those classes of their mean
    cross-entropy:

        (1 / K) * sum_c (1 / n_c) * sum_{label = c} -log(p)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid. A class without
        pixels in the image is left out of the mean, even if it is predicted.

    Reference:
        Xie and Tu, Holistically-Nested Edge Detection, 2015, equation 2.
        arXiv:1504.06375. The paper has two classes, edge and non-edge, with pixel
        weights |non-edge| / n and |edge| / n. The balance within an image is the same,
        but the paper weighs an image by 2 * |edge| * |non-edge| / n**2, which is 0
        without edges.
    """
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    target = one_hot(labels, pixel_mask, logits.shape[-1])
    size = jnp.sum(target, axis=(1, 2))
    weight = 1 / jnp.maximum(size, 1)
    cost = jax.nn.log_softmax(logits) * weight[:, None, None, :]
    # Not a product with the target, because 0 * -inf is NaN.
    cost = jnp.sum(cost, axis=(1, 2, 3), where=target > 0)
    num_classes = jnp.sum(size > 0, axis=-1)  # In the labels of each image.
    return -cost / jnp.maximum(num_classes, 1)


def focal(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    gamma: float = 2.0,
    class_weights: Weights | None = None,
) -> PerExample:
    """Focal loss: cross-entropy with less weight on well-classified pixels.

    With softmax probability p of the label y and class weights w, the loss of a pixel
    is

        -w[y] * (1 - p) ** gamma * log(p)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        gamma: Focusing exponent, at least 0; 0 is cross-entropy.
        class_weights: [C] factors, at least 0 (the paper's alpha); None for ones. The
            mean divides by the number of valid pixels, not by the sum of the weights.

    Returns:
        [B] nats per pixel, at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or gamma is negative.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, 2017, section 3.
        arXiv:1708.02002. The paper uses sigmoids; this is the softmax form, which
        equals it for two classes with logits (0, x).
    """
    if not 0 <= gamma < math.inf:
        raise UserError(
            f"focal needs gamma of at least 0, got {gamma}. Use 0 for cross-entropy."
        )
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    num_classes = logits.shape[-1]
    log_p = of_label(jax.nn.log_softmax(logits), labels)
    # Above 0, because a power below 1 has no finite gradient at 0.
    rest = jnp.maximum(1 - jnp.exp(log_p), jnp.finfo(logits.dtype).tiny)
    cost = -(rest**gamma) * log_p
    if class_weights is not None:
        weights = as_weights(class_weights, num_classes, logits.dtype)
        cost = cost * of_label(weights[None, None, None, :], labels)
    return mean_over_valid(cost, pixel_mask)
