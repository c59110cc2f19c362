"""Functions that all losses share: masking, class weights, soft counts."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array, Labels, Logits, PerExample, Valid

Weights = Sequence[float] | Array


def prepare(
    logits: Logits, labels: Labels, valid: Valid
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sets invalid pixels to 0 and converts to at least float32.

    Args:
        logits: [B, H, W, C] unnormalized scores of any float type.
        labels: [B, H, W] class ids; ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.

    Returns:
        Logits as float32 (float64 is kept), labels, and `valid` in the dtype of the
        logits. Logits and labels of invalid pixels are 0, so a label of 255 or a NaN
        there affects neither the value nor the gradient.

    Raises:
        ValueError: If a shape or dtype is wrong; outside `jit`, also if a label is not
            in [0, C) at a valid pixel. Under `jit` such a label has no defined loss.
    """
    checks.shapes(
        logits=(logits, "B H W C"), labels=(labels, "B H W"), valid=(valid, "B H W")
    )
    logits, valid = checks.as_floats("logits", logits), checks.as_mask("valid", valid)
    if not logits.shape[-1]:
        raise UserError("logits needs a channel for each class, got none.")
    labels = checks.as_class_ids(
        "labels", labels, num_classes=logits.shape[-1], valid=valid
    )
    logits = jnp.where(valid[..., None], logits, 0)
    labels = jnp.where(valid, labels, 0)
    return logits, labels, jnp.asarray(valid, logits.dtype)


def mean_over_valid(values: Array, valid: Array) -> PerExample:
    """Mean of [B, H, W] over the valid pixels of each image; 0 if there are none."""
    count = jnp.maximum(jnp.sum(valid, axis=(1, 2)), 1)
    return jnp.sum(values * valid, axis=(1, 2)) / count


def as_weights(
    weights: Weights | None, num_classes: int, dtype, *, name: str = "class_weights"
) -> jax.Array:
    """Converts weights to an array [C]; ones for None.

    Raises:
        ValueError: If weights does not have C entries, or one is negative or NaN.
    """
    if weights is None:
        return jnp.ones(num_classes, dtype)
    weights = jnp.asarray(weights, dtype)
    if weights.shape != (num_classes,):
        raise UserError(
            f"{name} needs {num_classes} numbers, one per class, got shape "
            f"{weights.shape}. Give one for each channel of the logits."
        )
    if checks.is_known(weights) and not np.all(np.asarray(weights) >= 0):
        raise UserError(
            f"{name} needs numbers of at least 0, got {np.asarray(weights).tolist()}. "
            f"Use 0 to leave a class out."
        )
    return weights


def mean_over_classes(values: Array, weights: Weights | None) -> PerExample:
    """Weighted mean of [B, C] over classes: sum(w * values) / sum(w).

    Raises:
        ValueError: If weights does not have C entries.
    """
    weights = as_weights(weights, values.shape[-1], values.dtype)
    if checks.is_known(weights) and not np.any(np.asarray(weights)):
        raise UserError(
            "class_weights needs a number above 0, got only zeros. Their mean over "
            "classes is 0 / 0."
        )
    return jnp.sum(values * weights[None, :], axis=-1) / jnp.sum(weights)


def soft_counts(
    probs: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """True positives, false positives and false negatives of every class.

    All are read from the soft confusion matrix, one matrix product whose entry [i, j]
    is the probability that pixels of class i assign to class j. This is faster than
    sums over pixels. Errors are summed rather than computed as differences of totals,
    so they are exactly 0 for a perfect prediction.

    Args:
        probs: [B, H, W, C].
        target: [B, H, W, C] one-hot; all 0 where a pixel is invalid.

    Returns:
        Three [B, C], in pixels.
    """
    confusion = _products(target, probs)
    right = jnp.eye(probs.shape[-1], dtype=confusion.dtype)[None]
    wrong = confusion * (1 - right)
    hits = jnp.sum(confusion * right, axis=2)
    return hits, jnp.sum(wrong, axis=1), jnp.sum(wrong, axis=2)


def _products(target: jax.Array, probs: jax.Array) -> jax.Array:
    """Sums of products over pixels [B, i, j]."""
    if probs.size < 2**24:
        return jnp.einsum("bhwi,bhwj->bij", target, probs, precision="highest")
    # A matrix product would copy both operands, twice: 0.5 GB for 20 megapixels.
    rows = [
        jnp.sum(target[..., i : i + 1] * probs, axis=(1, 2))
        for i in range(target.shape[-1])
    ]
    return jnp.stack(rows, axis=1)


def of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Selects the entry of the label, such as its log-probability: [B, H, W].

    By a one-hot mask rather than a gather, whose gradient is a slow scatter; and not by
    a product, because 0 * -inf of a class that is masked out is NaN.

    Args:
        values: [B, H, W, C], or [1, 1, 1, C].
        labels: [B, H, W].
    """
    hot = jax.nn.one_hot(labels, values.shape[-1], dtype=bool)
    return jnp.sum(jnp.broadcast_to(values, hot.shape), axis=-1, where=hot)


def softmax_and_log_p(
    logits: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Softmax [B, H, W, C] and the log-probability of the label [B, H, W].

    Both use the same exponentials, which is cheaper than computing them separately. The
    log-probability is undefined where the one-hot target is all 0.
    """
    top = jnp.max(jax.lax.stop_gradient(logits), axis=-1, keepdims=True)
    shifted = logits - top
    exps = jnp.exp(shifted)
    total = jnp.sum(exps, axis=-1)
    # Not a product, because 0 * -inf is NaN.
    log_p = jnp.sum(shifted, axis=-1, where=target > 0) - jnp.log(total)
    return exps / total[..., None], log_p


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of sigmoid probabilities, for targets in [0, 1] of any one shape.

    A logit of -inf where the target is 0 costs 0.
    """
    # softplus(x) - x would lose all digits for large logits of the right sign.
    rest = jnp.log1p(jnp.exp(-jnp.abs(logits)))
    # Not a bare product, because 0 * -inf of a class that is masked out is NaN.
    own = jnp.where(targets == 0, 0, targets * logits)
    return jnp.maximum(logits, 0) - own + rest


def one_hot(labels: Array, pixel_mask: jax.Array, num_classes: int) -> jax.Array:
    """[B, H, W, C] one-hot labels, all 0 where `pixel_mask` [B, H, W] is 0."""
    target = jax.nn.one_hot(labels, num_classes, dtype=pixel_mask.dtype)
    return target * pixel_mask[..., None]


def check_smooth(name: str, value: float) -> None:
    """Checks that `smooth` avoids 0 / 0 for an absent class.

    Raises:
        ValueError: If value is not above 0.
    """
    if not 0 < value < math.inf:
        raise UserError(
            f"{name} needs smooth above 0, got {value}. Otherwise a class absent from "
            f"labels and prediction is 0 / 0; use 1e-5 for little smoothing."
        )


def region_counts(
    logits: Logits, labels: Labels, valid: Valid
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`soft_counts` of the softmax probabilities over the valid pixels."""
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    return soft_counts(
        jax.nn.softmax(logits), one_hot(labels, pixel_mask, logits.shape[-1])
    )
