"""Lovász extensions of the Jaccard loss.

For the errors e of an image's pixels, in descending order, the extension of the Jaccard
loss J of one class is

    sum_i e_i * (J(first i pixels wrong) - J(first i - 1 pixels wrong))

It equals J where every error is 0 or 1, and is convex in the errors.
"""

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.losses.common import one_hot, prepare
from segjax.typing import Labels, Logits, PerExample, Valid


def lovasz_softmax(logits: Logits, labels: Labels, valid: Valid) -> PerExample:
    """Lovász extension of the Jaccard loss of each class, over softmax errors.

    The error of a pixel is 1 - p for its own class and p for others. The mean is over
    the classes in the image's labels (`classes="present"` in the authors' code). A
    class that is only predicted affects the loss through the other classes, whose
    probability it lowers.

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.

    Returns:
        [B] loss in [0, 1]; 0 when every pixel is invalid.

    Reference:
        Berman et al., The Lovász-Softmax loss, 2018, sections 2 and 3.
        arXiv:1705.08790. The loss is computed per image (the authors'
        `per_image=True`), not over all pixels of the batch.
    """
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    target = one_hot(labels, pixel_mask, logits.shape[-1])
    errors = jnp.abs(target - jax.nn.softmax(logits))
    loss = lovasz_of_errors(errors, target, pixel_mask)
    in_labels = jnp.any(target > 0, axis=(1, 2))
    return jnp.sum(jnp.where(in_labels, loss, 0), axis=-1) / jnp.maximum(
        jnp.sum(in_labels, axis=-1), 1
    )


def lovasz_hinge(logits: Logits, labels: Labels, valid: Valid) -> PerExample:
    """Lovász extension of the foreground's Jaccard loss, over hinge errors.

    For two classes. With the margin x = logits[..., 1] - logits[..., 0] and the
    label's sign s, the error of a pixel is max(0, 1 - s * x).

    Args:
        logits: [B, H, W, 2] unnormalized scores.
        labels: [B, H, W] 0 or 1; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.

    Returns:
        [B] loss, at least 0; 0 if all margins are 1 or more, or every pixel is invalid.
        In an image without foreground it is the largest error, as in the authors' code,
        since any foreground predicted there has an IoU of 0.

    Raises:
        ValueError: If the logits do not have two classes.

    Reference:
        Berman et al., The Lovász-Softmax loss, 2018, section 2. arXiv:1705.08790,
        after Yu and Blaschko, The Lovász Hinge, 2015. arXiv:1512.07797. The loss is
        computed per image.
    """
    if logits.shape[-1] != 2:
        raise UserError(
            f"lovasz_hinge needs 2 classes, got logits of {logits.shape[-1]}. "
            f"Use lovasz_softmax for other numbers of classes."
        )
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    target = (labels * pixel_mask)[..., None]
    margin = logits[..., 1:] - logits[..., :1]
    errors = jax.nn.relu(1 - (2 * target - 1) * margin) * pixel_mask[..., None]
    return lovasz_of_errors(errors, target, pixel_mask)[:, 0]


def lovasz_of_errors(
    errors: jax.Array, target: jax.Array, pixel_mask: jax.Array
) -> jax.Array:
    """The extension for each class, [B, C].

    Args:
        errors: [B, H, W, C] at least 0.
        target: [B, H, W, C] 1 where a pixel is of the class, else 0.
        pixel_mask: [B, H, W] 1 where a pixel is valid, else 0.
    """
    errors, target = _pixels_last(errors), _pixels_last(target)
    pixel_mask = _pixels_last(pixel_mask[..., None])
    return jnp.sum(errors * _lovasz_gradient(errors, target, pixel_mask), axis=-1)


def _pixels_last(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, C, H * W]."""
    examples, height, width, channels = x.shape
    return jnp.moveaxis(x.reshape(examples, height * width, channels), -1, 1)


def _lovasz_gradient(
    errors: jax.Array, target: jax.Array, pixel_mask: jax.Array
) -> jax.Array:
    """Gradient of the loss with respect to the errors, all [B, C, N].

    Args:
        errors: At least 0.
        target: 1 where a pixel is of the class, else 0.
        pixel_mask: [B, 1, N] 1 where a pixel is valid, else 0.

    Returns:
        The increase of J when the pixel joins those with larger errors; 0 where
        invalid. No gradient flows through it.
    """
    pixel_mask = jnp.broadcast_to(pixel_mask, errors.shape)
    order = ops.argsort(-errors)  # Invalid pixels are in neither count below.
    # int32, because float32 is exact only up to 2**24 pixels.
    member = jnp.take_along_axis(target, order, axis=-1).astype(jnp.int32)
    other = jnp.take_along_axis(pixel_mask - target, order, axis=-1).astype(jnp.int32)
    size = jnp.sum(member, axis=-1, keepdims=True)
    left = (size - jnp.cumsum(member, axis=-1)).astype(errors.dtype)
    union = (size + jnp.cumsum(other, axis=-1)).astype(errors.dtype)
    jaccard = 1 - left / jnp.maximum(union, 1)
    steps = jnp.diff(jaccard, axis=-1, prepend=0)
    slopes = jnp.put_along_axis(
        jnp.zeros_like(steps), order, steps, axis=-1, inplace=False
    )
    return jax.lax.stop_gradient(slopes * pixel_mask)
