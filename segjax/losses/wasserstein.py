"""Generalized Wasserstein Dice, for classes that are more or less alike."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.losses.common import check_smooth, prepare
from segjax.typing import Array, Labels, Logits, PerExample, Valid


def wasserstein_dice(
    logits: Logits,
    labels: Labels,
    valid: Valid,
    *,
    distances: Sequence[Sequence[float]] | Array,
    smooth: float = 1.0,
) -> PerExample:
    """Dice loss in which confusing distant classes costs more than similar ones.

    With softmax probability p, label y and distances M between classes, the error of a
    pixel is d = sum_c M[y, c] * p[c]. Class 0 is the background. Over the valid pixels,

        errors = sum d
        hits = sum over y > 0 of (1 - d)
        loss = errors / (2 * hits + errors + smooth)

    Args:
        logits: [B, H, W, C] unnormalized scores.
        labels: [B, H, W] class ids in [0, C); ignored where not valid.
        valid: [B, H, W] True where a pixel contributes to the loss.
        distances: [C, C] numbers in [0, 1], symmetric, 0 on the diagonal. Usually all
            classes have a distance of 1 to the background.
        smooth: In pixels; above 0.

    Returns:
        [B] loss in [0, 1); 0 when every pixel is invalid.

    Raises:
        ValueError: If `distances` is not such a matrix, or smooth is not above 0.

    Reference:
        Fidon et al., Generalised Wasserstein Dice Score for Imbalanced Multi-class
        Segmentation using Holistic Convolutional Networks, 2017, section 3.
        arXiv:1707.00478. The paper has no smooth, and its 1 is the distance of a class
        to the background.
    """
    check_smooth("wasserstein_dice", smooth)
    matrix = _check_distances(distances)
    logits, labels, pixel_mask = prepare(logits, labels, valid)
    num_classes = logits.shape[-1]
    if len(matrix) != num_classes:
        raise UserError(
            f"distances needs {num_classes} rows, one per class, got {len(matrix)}. "
            f"Give one for each channel of the logits."
        )
    hot = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype)
    matrix = jnp.asarray(matrix, logits.dtype)
    to_label = jnp.matmul(hot, matrix, precision="highest")
    error = jnp.sum(to_label * jax.nn.softmax(logits), axis=-1) * pixel_mask
    foreground = pixel_mask * (labels > 0)
    errors = jnp.sum(error, axis=(1, 2))
    hits = jnp.sum(foreground * (1 - error), axis=(1, 2))
    return errors / (2 * hits + errors + smooth)


def _check_distances(distances: Sequence[Sequence[float]] | Array) -> np.ndarray:
    matrix = np.asarray(distances, np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not square or not (
        np.all((matrix >= 0) & (matrix <= 1))
        and np.array_equal(matrix, matrix.T)
        and not np.diag(matrix).any()
    ):
        raise UserError(
            f"distances needs a symmetric matrix [C, C] of numbers in [0, 1] that is 0 "
            f"on the diagonal, got shape {list(matrix.shape)}: {matrix.tolist()}. "
            f"Divide it by its largest number."
        )
    return matrix
