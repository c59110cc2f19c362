"""Combines losses into the objective of a train step."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array, Batch, Labels, Logits, Objective, PerExample, Valid


def semantic(**terms: tuple[float, Callable[..., PerExample]]) -> Objective:
    """Builds a weighted sum of losses of one logit map per image.

    Logits and labels must have the same size. For a model that trims its border, such
    as a U-Net with valid padding, `segjax.forward` crops the labels first.

        losses.semantic(ce=(0.5, losses.cross_entropy), dice=(0.5, losses.soft_dice))

    Bind options of a loss with functools.partial.

    Args:
        **terms: name=(weight, loss). Terms are logged under their names.

    Returns:
        An objective: `(logits, batch) -> {name: [B] weighted loss}`.

    Raises:
        ValueError: If there are no terms; from the objective, if logits and labels
            differ in size.
    """
    _check_terms("semantic", terms)

    def objective(logits: Logits, batch: Batch) -> dict[str, PerExample]:
        labels, valid = _labels(logits, batch)
        return {
            name: weight * loss(logits, labels, valid)
            for name, (weight, loss) in terms.items()
        }

    return objective


def semantic_weighted(
    pixel_weights: Callable[[Batch], Array],
    **terms: tuple[float, Callable[..., PerExample]],
) -> Objective:
    """Builds a weighted sum of losses, as `semantic`, with a weight for every pixel.

        losses.semantic_weighted(
            lambda batch: batch["pixel_weight"], ce=(1.0, losses.cross_entropy)
        )

    Args:
        pixel_weights: `batch -> [B, H, W]`: an entry of the batch, or a function of
            one, such as `border_weights` of an instance map. No gradient flows through
            it.
        **terms: name=(weight, loss), where the loss takes `pixel_weights=`, as
            `cross_entropy` does.

    Returns:
        An objective: `(logits, batch) -> {name: [B] weighted loss}`.

    Raises:
        ValueError: If there are no terms; from the objective, if logits, labels and
            weights differ in size.
    """
    _check_terms("semantic_weighted", terms)

    def objective(logits: Logits, batch: Batch) -> dict[str, PerExample]:
        labels, valid = _labels(logits, batch)
        weights = jax.lax.stop_gradient(jnp.asarray(pixel_weights(batch)))
        if weights.shape != labels.shape:
            raise UserError(
                f"pixel_weights needs to return one number per pixel, "
                f"{list(labels.shape)}, got {list(weights.shape)}."
            )
        return {
            name: weight * loss(logits, labels, valid, pixel_weights=weights)
            for name, (weight, loss) in terms.items()
        }

    return objective


def deep_supervision(objective: Objective, *, weights: Sequence[float]) -> Objective:
    """Applies an objective to logits of several sizes and sums the terms.

        losses.deep_supervision(
            losses.semantic(dice=(1.0, losses.soft_dice)), weights=(4 / 7, 2 / 7, 1 / 7)
        )

    Labels, `valid` and any other map in the batch of the labels' size are resized to
    the logits by nearest-neighbor interpolation.

    Args:
        objective: `(logits, batch) -> {name: [B]}`.
        weights: One per logit map, in the order of the outputs.

    Returns:
        An objective: `(sequence of logits [B, h, w, C], batch) -> {name: [B]}` with the
        names of the given objective.

    Raises:
        ValueError: If there are no weights; from the objective, if the numbers of
            outputs and weights differ.

    Reference:
        Lee et al., Deeply-Supervised Nets, 2014. arXiv:1409.5185. Smaller labels, and
        weights that halve and sum to 1, are those of nnU-Net (Isensee et al., 2018,
        arXiv:1809.10486), which gives its smallest map a weight of 0.
    """
    if not weights:
        raise UserError(
            "deep_supervision needs one weight per logit map, got none. "
            "Try weights=(2 / 3, 1 / 3)."
        )

    def deep(outputs: Sequence[Array], batch: Batch) -> dict[str, PerExample]:
        if len(outputs) != len(weights):
            raise UserError(
                f"deep_supervision has {len(weights)} weights, got {len(outputs)} "
                f"outputs. Give one weight for each logit map of the model."
            )
        sums: dict[str, PerExample] = {}
        for weight, logits in zip(weights, outputs, strict=True):
            terms = objective(logits, _resized(batch, logits.shape[1:3]))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + weight * value
        return sums

    return deep


def _labels(logits: Logits, batch: Batch) -> tuple[Labels, Valid]:
    """Labels, 0 where not valid, and `valid`."""
    label, valid = batch["label"], batch["valid"]
    if logits.shape[:-1] != label.shape:
        raise UserError(
            f"Logits and labels need the same size, got logits {list(logits.shape)} "
            f"and labels {list(label.shape)}. Resize the logits (ops.resize_bilinear), "
            f"or declare the pixels that the model trims in its attribute `margin`."
        )
    return jnp.where(valid, label, 0), valid


def _resized(batch: Batch, size: Sequence[int]) -> dict[str, Array]:
    """Resizes every map of the batch that has the labels' size."""
    full = batch["label"].shape

    def resize(x):
        same = x.shape[:3] == full and tuple(size) != full[1:]
        return ops.resize_nearest(x, size) if same else x

    return {name: resize(x) for name, x in batch.items()}


def _check_terms(name: str, terms: dict) -> None:
    if not terms:
        raise UserError(
            f"{name} needs at least one term, got none. "
            f"Try ce=(1.0, losses.cross_entropy)."
        )
    for term, (weight, _) in terms.items():
        checks.number(name, f"weight of {term}", weight)
