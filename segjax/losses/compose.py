"""From losses to the objective that a train step takes."""

from collections.abc import Callable

import jax.numpy as jnp

from segjax import ops
from segjax.typing import Batch, Logits, Objective, PerExample


def semantic(**terms: tuple[float, Callable[..., PerExample]]) -> Objective:
    """Weighted loss terms for one logit map per image.

    Where the logits are smaller than the labels, as from a U-Net with valid
    padding, labels are cropped to their centre.

        losses.semantic(ce=(0.5, losses.cross_entropy), dice=(0.5, losses.soft_dice))

    Options of a loss are bound with functools.partial.

    Args:
        **terms: name=(weight, loss). The name is what the logs show.

    Returns:
        An objective: `(logits, batch) -> {name: [B] weighted loss}`.

    Raises:
        ValueError: If there is no term; from the objective, if the logits are
            larger than the labels.
    """
    if not terms:
        raise ValueError(
            "semantic needs at least one term, got none. "
            "Try losses.semantic(ce=(1.0, losses.cross_entropy))."
        )

    def objective(logits: Logits, batch: Batch) -> dict[str, PerExample]:
        size = logits.shape[1:3]
        valid = ops.center_crop(batch["valid"], size)
        labels = jnp.where(valid, ops.center_crop(batch["label"], size), 0)
        return {
            name: weight * loss(logits, labels, valid)
            for name, (weight, loss) in terms.items()
        }

    return objective
