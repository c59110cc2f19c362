"""What every loss does to its arguments before the formula, once."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from segjax.typing import Array, Labels, Logits, PerExample, Valid

Weights = Sequence[float] | Array


def prepare(
    logits: Logits, labels: Labels, valid: Valid
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Makes invalid pixels harmless and the arithmetic at least float32.

    Args:
        logits: [B, H, W, C] unnormalised scores of any float type.
        labels: [B, H, W] class ids; anything where not valid.
        valid: [B, H, W] True where a pixel counts.

    Returns:
        Logits as float32 (float64 stays), labels, and `valid` as that float type.
        Where a pixel is invalid its logits and label are 0, so that neither a
        label of 255 nor a NaN there can reach a value or a gradient.
    """
    chex.assert_rank([logits, labels, valid], [4, 3, 3])
    chex.assert_equal_shape_prefix([logits, labels, valid], 3)
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    logits = jnp.where(valid[..., None], jnp.asarray(logits, dtype), 0)
    labels = jnp.where(valid, jnp.asarray(labels, jnp.int32), 0)
    return logits, labels, jnp.asarray(valid, dtype)


def mean_over_valid(values: Array, valid: Array) -> PerExample:
    """Mean of [B, H, W] over the valid pixels of each image; 0 where none is."""
    count = jnp.maximum(jnp.sum(valid, axis=(1, 2)), 1)
    return jnp.sum(values * valid, axis=(1, 2)) / count


def as_weights(weights: Weights | None, num_classes: int, dtype) -> jax.Array:
    """Class weights as [C]; ones for None.

    Raises:
        ValueError: If there is not one weight a class.
    """
    if weights is None:
        return jnp.ones(num_classes, dtype)
    weights = jnp.asarray(weights, dtype)
    if weights.shape != (num_classes,):
        raise ValueError(
            f"class_weights needs {num_classes} numbers, one a class, got shape "
            f"{weights.shape}. Give one weight for each channel of the logits."
        )
    return weights
