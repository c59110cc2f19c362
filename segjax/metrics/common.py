"""Functions that all metrics of logits share: checks, labels, names of scores."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Integer

from segjax.errors import UserError
from segjax.metrics.rows import WRONG
from segjax.ops import checks
from segjax.typing import Array, Batch, Labels, Logits, Valid

Masks = Bool[Array, "*batch h w"] | Integer[Array, "*batch h w"]
"""True, or not 0, where a pixel belongs to the object."""


def check_distinct(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names as a tuple, and checks that they are distinct.

    Raises:
        ValueError: If a name is given twice.
    """
    classes = tuple(classes)
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise UserError(
            f"classes needs distinct names, got {', '.join(twice)} twice. Rename one."
        )
    return classes


def masked_labels(
    logits: Logits, batch: Batch, *, classes: tuple[str, ...]
) -> tuple[Labels, Valid, Batch]:
    """Returns the labels to compare with logits, `valid`, and the batch.

    Args:
        logits: [B, H, W, C].
        batch: Has `label`, `valid` and `weight`.
        classes: C names.

    Returns:
        Labels, 0 where not valid, `valid`, False in examples of weight 0, and the batch
        with the counts of `wrong_pixels`.

    Raises:
        ValueError: If the logits do not have one channel per class, or differ in size
            from the labels; if labels are not integers, or known and out of range.
    """
    if logits.shape[-1] != len(classes):
        raise UserError(
            f"The metric needs logits of {len(classes)} channels, one per class, got "
            f"{logits.shape[-1]}. Set the model's num_classes."
        )
    check_one_size(logits, batch["label"])
    valid = checks.as_mask("valid", batch["valid"])
    valid = valid & (batch["weight"] > 0)[:, None, None]
    labels = checks.as_class_ids(
        "label", batch["label"], num_classes=len(classes), valid=valid
    )
    wrong = wrong_pixels(logits, labels, valid)
    return jnp.where(valid, labels, 0), valid, {**batch, WRONG: wrong}


def wrong_pixels(
    logits: Logits, labels: Labels | None, valid: Valid
) -> dict[str, jax.Array]:
    """Counts the valid pixels of each image whose logits or label have no meaning.

    Args:
        logits: [B, H, W, C].
        labels: [B, H, W] int32; None if they are no class ids.
        valid: [B, H, W].

    Returns:
        `logits` and `labels`, int32 [B]: NaN in a logit, labels outside [0, C).
    """
    wrong: dict[str, Array] = {
        "logits": jnp.isnan(jnp.max(logits, axis=-1))
    }  # A maximum keeps NaN.
    if labels is not None:
        wrong["labels"] = (labels < 0) | (labels >= logits.shape[-1])
    return {
        k: jnp.sum(jnp.asarray(x) & valid, axis=(1, 2), dtype=jnp.int32)
        for k, x in wrong.items()
    }


def check_one_size(logits: Logits, labels: Array) -> None:
    """Checks that logits [B, H, W, C] have the size of labels [B, H, W]."""
    if logits.shape[:-1] != labels.shape:
        raise UserError(
            f"The metric needs logits and labels of the same size, got logits "
            f"{list(logits.shape)} and labels {list(labels.shape)}. Resize the logits "
            f"(ops.resize_bilinear), or declare the pixels that the model trims in its "
            f"attribute `margin`."
        )


def predicted_and_masked_labels(
    logits: Logits, batch: Batch, *, classes: tuple[str, ...]
) -> tuple[Labels, Labels, Valid, Batch]:
    """Returns predicted labels (argmax of the logits), and as `masked_labels`."""
    labels, valid, batch = masked_labels(logits, batch, classes=classes)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), labels, valid, batch


def diagonal(valid: Masks, *, spacing: Sequence[float] = (1.0, 1.0)) -> jax.Array:
    """Diagonal of the bounding box of the True pixels, between pixel centers.

    Args:
        valid: [..., H, W], or [..., D, H, W] with a spacing of three numbers.
        spacing: (height, width) of a pixel.

    Returns:
        [...] in the unit of `spacing`; 0 if no pixel is True.
    """
    axes = range(-len(spacing), 0)
    squared = 0.0
    for axis, side in zip(axes, spacing, strict=True):
        # Which planes along the axis have a True pixel.
        line = jnp.any(valid, axis=tuple(other for other in axes if other != axis))
        first = jnp.argmax(line, axis=-1)
        last = line.shape[-1] - 1 - jnp.argmax(line[..., ::-1], axis=-1)
        length = jnp.where(jnp.any(line, axis=-1), last - first, 0)
        squared += (length * side) ** 2
    return jnp.sqrt(squared)


def named_per_image(
    scores: Mapping[str, Mapping[str, jax.Array]],
) -> dict[str, jax.Array]:
    """Names the scores of classes by the keys of `PerImage`.

    Args:
        scores: Arrays [B] by class, then by score; NaN where a class has no score.

    Returns:
        `mean_<score>_per_image`, over the classes that have a score, and
        `<score>_per_image/<class>`.
    """
    keyed = {}
    for score in next(iter(scores.values()), {}):
        values = {name: by_score[score] for name, by_score in scores.items()}
        stacked = jnp.stack(list(values.values()), axis=-1)
        seen = ~jnp.isnan(stacked)
        total, count = jnp.sum(jnp.where(seen, stacked, 0), -1), jnp.sum(seen, -1)
        mean = jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
        keyed[f"mean_{score}_per_image"] = mean
        keyed |= {f"{score}_per_image/{name}": v for name, v in values.items()}
    return keyed


def scored_classes(
    classes: Sequence[str], *, ignore_background: bool
) -> list[tuple[int, str]]:
    """Returns (class id, name) of the classes to score, all or all but the background.

    Raises:
        ValueError: If there is no class to score.
    """
    kept = list(enumerate(classes))[int(ignore_background) :]
    if not kept:
        raise UserError(
            f"ignore_background=True needs a class besides the background, got "
            f"{list(classes)}. Use ignore_background=False."
        )
    return kept
