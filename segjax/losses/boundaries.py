"""Losses that measure errors by their distance from the boundary, in pixels."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.losses.common import Weights, mean_over_classes, one_hot, prepare
from segjax.typing import Labels, Logits, PerExample, Valid


def boundary(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    class_weights: Weights | None = None,
    spacing: Sequence[float] = (1.0, 1.0),
) -> PerExample:
    """Softmax probability times the signed distance to the true region.

    The loss of a class is the mean of phi * p over the valid pixels. Outside the region
    of the class, phi is the distance to the nearest pixel of the region. Inside, it is
    minus the distance to the nearest pixel of another class, plus the distance between
    two pixels, so that it is 0 along the region's own edge.

    The value is negative for good predictions, so only its gradient is meaningful. The
    loss alone trains poorly, so the paper adds it to a regional loss, with a weight
    that grows:

        losses.semantic(
            dice=(1.0, losses.generalized_dice), boundary=(0.01, losses.boundary)
        )

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss. Distances are to
            valid pixels only.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights. The paper has (0, 1).
        spacing: (height, width) of a pixel, above 0, in the unit of the loss.

    Returns:
        [B] in pixels, of either sign; smallest for a perfect prediction. A class that
        is absent from the labels, or fills them, has no boundary and contributes 0; 0
        when every pixel is invalid.

    Raises:
        ValueError: If class_weights does not have C entries, or spacing is not above 0.

    Reference:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, 2018,
        section 2. arXiv:1812.07032. The paper has one foreground class; distances
        are those of its code.
    """
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    target = one_hot(labels, pixel_mask, logits.shape[-1])
    inside = target > 0
    near, far = _distances_to_boundary(inside, pixel_mask, spacing)
    # Inside, an edge pixel is one pixel from the next region; phi is 0 there.
    step = jnp.asarray(min(spacing), far.dtype)
    signed = jnp.where(inside, jnp.minimum(step - far, 0), near)
    signed = jnp.where(_has_boundary(inside, pixel_mask), signed, 0)
    cost = jax.nn.softmax(logits) * signed * pixel_mask[..., None]
    num_valid = jnp.maximum(jnp.sum(pixel_mask, axis=(1, 2)), 1)
    return mean_over_classes(
        jnp.sum(cost, axis=(1, 2)) / num_valid[:, None], class_weights
    )


def hausdorff(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    alpha: float = 2.0,
    class_weights: Weights | None = None,
    spacing: Sequence[float] = (1.0, 1.0),
) -> PerExample:
    """Squared errors, weighted by their distances to both boundaries.

    With softmax probability p and one-hot target t, the loss of a class is the mean
    over the valid pixels of

        (p - t)**2 * (D_predicted**alpha + D_true**alpha)

    where D is the distance of a pixel to the other side of the boundary of the
    predicted region (p above 1/2) and of the true region. No gradient flows through D.
    As in the Hausdorff distance, errors far from the boundary cost most. The loss
    starts in the thousands for images of 256 pixels, so the paper adds it to soft Dice
    with a weight that makes the two equal.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss. Distances are to
            valid pixels only.
        alpha: Exponent of the distance, above 0; the paper's range is 1 to 3.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights. The paper has one foreground class.
        spacing: (height, width) of a pixel, above 0, in the unit of the distance.

    Returns:
        [B] in pixels to the power alpha, at least 0; 0 when every pixel is invalid.
        A region that is absent or fills the image has no boundary, and its distance is
        0. A class absent from the labels therefore contributes 0 while its probability
        stays at 1/2 or below.

    Raises:
        ValueError: If class_weights does not have C entries, or alpha or spacing is not
            above 0.

    Reference:
        Karimi and Salcudean, Reducing the Hausdorff Distance in Medical Image
        Segmentation with Convolutional Neural Networks, 2019, equation 8.
        arXiv:1904.10030.
    """
    if not 0 < alpha < math.inf:
        raise UserError(
            f"hausdorff needs alpha above 0, got {alpha}. The paper's is 2."
        )
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    target = one_hot(labels, pixel_mask, logits.shape[-1])
    probs = jax.nn.softmax(logits)
    weight = 0.0
    for inside in (probs > 0.5, target > 0):
        inside = inside & (pixel_mask[..., None] > 0)
        near, far = _distances_to_boundary(inside, pixel_mask, spacing)
        distance = jnp.where(_has_boundary(inside, pixel_mask), near + far, 0)
        weight = weight + distance**alpha
    cost = (probs - target) ** 2 * weight * pixel_mask[..., None]
    num_valid = jnp.maximum(jnp.sum(pixel_mask, axis=(1, 2)), 1)
    return mean_over_classes(
        jnp.sum(cost, axis=(1, 2)) / num_valid[:, None], class_weights
    )


def log_hausdorff(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    alpha: float = 2.0,
    class_weights: Weights | None = None,
    spacing: Sequence[float] = (1.0, 1.0),
) -> PerExample:
    """log(1 + Hausdorff loss), whose value is of the size of other losses.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        alpha: As in `hausdorff`, above 0.
        class_weights: [C] weights of the mean over classes inside the logarithm, at
            least 0 and not all 0; None for equal weights.
        spacing: (height, width) of a pixel, above 0, in the unit of the distance.

    Returns:
        [B] at least 0; 0 when every pixel is invalid.

    Raises:
        ValueError: As for `hausdorff`.

    Reference:
        MONAI's `LogHausdorffDTLoss`.
    """
    loss = hausdorff(
        *(logits, labels, valid),
        alpha=alpha,
        class_weights=class_weights,
        spacing=spacing,
    )
    return jnp.log1p(loss)


def _distances_to_boundary(
    inside: jax.Array, pixel_mask: jax.Array, spacing: Sequence[float]
) -> tuple[jax.Array, jax.Array]:
    """Computes the distances to the region and to the valid pixels outside it.

    Args:
        inside: bool [B, H, W, C], False where a pixel is invalid.
        pixel_mask: [B, H, W] 1 where a pixel is valid, else 0.
        spacing: (height, width) of a pixel.

    Returns:
        Two [B, H, W, C]: the first is 0 inside, the second outside; inf where
        there is no such pixel.
    """
    outside = ~inside & (pixel_mask[..., None] > 0)
    sides = jnp.moveaxis(jnp.stack([inside, outside]), -1, 2)
    distance = ops.distance_transform(~sides, spacing=spacing)
    near, far = jnp.moveaxis(distance, 2, -1)
    return near, far


def _has_boundary(inside: jax.Array, pixel_mask: jax.Array) -> jax.Array:
    """[B, 1, 1, C]: whether the image has valid pixels both inside and outside."""
    outside = ~inside & (pixel_mask[..., None] > 0)
    axes = (1, 2)
    return jnp.any(inside, axis=axes, keepdims=True) & jnp.any(
        outside, axis=axes, keepdims=True
    )
