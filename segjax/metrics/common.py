"""What metrics of logits do to their arguments, once."""

from collections.abc import Sequence

import jax.numpy as jnp

from segjax import ops
from segjax.typing import Batch, Labels, Logits, Valid


def distinct(classes: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        ValueError: If a name is given twice.
    """
    classes = tuple(classes)
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ValueError(
            f"classes needs distinct names, got {', '.join(twice)} twice. Rename one."
        )
    return classes


def truth_of(
    logits: Logits, batch: Batch, *, classes: tuple[str, ...]
) -> tuple[Labels, Valid]:
    """Labels and `valid` as the logits see them.

    Args:
        logits: [B, H, W, C]; where they are smaller than the labels, labels are
            cropped to their centre.
        batch: Has `label`, `valid` and `weight`.
        classes: C names.

    Returns:
        Labels, 0 where not valid, and `valid`, False in examples of weight 0.

    Raises:
        ValueError: If the logits have another number of channels, or are larger than
            the labels.
    """
    if logits.shape[-1] != len(classes):
        raise ValueError(
            f"The metric needs logits of {len(classes)} channels, one a class, got "
            f"{logits.shape[-1]}. Set the model's num_classes."
        )
    size = logits.shape[1:3]
    valid = ops.center_crop(batch["valid"], size)
    valid = valid & (batch["weight"] > 0)[:, None, None]
    labels = ops.center_crop(batch["label"], size)
    return jnp.where(valid, labels, 0).astype(jnp.int32), valid


def labels_of(
    logits: Logits, batch: Batch, *, classes: tuple[str, ...]
) -> tuple[Labels, Labels, Valid]:
    """Predicted labels (the largest logit), labels and `valid`; see `truth_of`."""
    labels, valid = truth_of(logits, batch, classes=classes)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), labels, valid
