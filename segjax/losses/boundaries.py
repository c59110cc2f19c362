"""Losses that measure errors by their distance from the boundary, in pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from segjax import ops
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

    With phi the distance to the nearest pixel of the class outside its region, and
    inside minus the distance to the nearest pixel of another class plus the
    distance between two pixels, so that it is 0 along the region's own edge, a
    class costs the mean of phi * p over the valid pixels.

    Only the gradient says something about an image: the value is negative for good
    predictions. It is weak far into training and misleading at the start, so the
    paper adds it to a regional loss, with a weight that grows:

        losses.semantic(
            dice=(1.0, losses.generalized_dice), boundary=(0.01, losses.boundary)
        )

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss. Invalid pixels belong to no
            region: distances are to valid pixels.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights. The paper has (0, 1).
        spacing: (height, width) of a pixel, above 0, in the unit of the loss.

    Returns:
        [B] in pixels, of either sign; least for a perfect prediction. A class that
        is absent from the labels, or fills them, has no boundary and costs 0; 0
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
    # Inside, an edge pixel is one pixel from the next region: made 0.
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
    """Squared errors, weighted by the distance from both boundaries.

    With softmax probability p, one-hot target t, and the distances D of a pixel to
    the other side of the boundary of the predicted region (p above 1/2) and of the
    true region, a class costs the mean over the valid pixels of

        (p - t)**2 * (D_predicted**alpha + D_true**alpha)

    Distances are constants to the gradient. Errors far from the boundary cost most,
    as they do in the Hausdorff distance; at 256 pixels the loss starts in the
    thousands, so the paper adds it to soft Dice with a weight that makes them equal.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss. Invalid pixels belong to no
            region: distances are to valid pixels.
        alpha: Power of the distance, above 0; the paper's range is 1 to 3.
        class_weights: [C] weights of the mean over classes, at least 0 and not
            all 0; None for equal weights. The paper has one foreground class.
        spacing: (height, width) of a pixel, above 0, in the unit of the distance.

    Returns:
        [B] in pixels to the power alpha, at least 0; 0 when every pixel is invalid.
        A region that is absent or fills the image has no boundary: its distance is
        0. So a class absent from both sides has loss 0, and so does any
        prediction of it that stays below 1/2.

    Raises:
        ValueError: If class_weights does not have C entries, or alpha or spacing is not
            above 0.

    Reference:
        Karimi and Salcudean, Reducing the Hausdorff Distance in Medical Image
        Segmentation with Convolutional Neural Networks, 2019, equation 8.
        arXiv:1904.10030.
    """
    if alpha <= 0:
        raise ValueError(
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


def _distances_to_boundary(
    inside: jax.Array, pixel_mask: jax.Array, spacing: Sequence[float]
) -> tuple[jax.Array, jax.Array]:
    """Distance to the region, and to the valid pixels outside it.

    Args:
        inside: bool [B, H, W, C], False where a pixel does not count.
        pixel_mask: [B, H, W] 1 where a pixel counts, else 0.
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
    """[B, 1, 1, C]: the image has valid pixels both inside and outside."""
    outside = ~inside & (pixel_mask[..., None] > 0)
    axes = (1, 2)
    return jnp.any(inside, axis=axes, keepdims=True) & jnp.any(
        outside, axis=axes, keepdims=True
    )
