"""What an augmentation may move, and what it must refuse."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from segjax.typing import Example

_PIXELS = ("image", "label", "valid")
_INSTANCES = ("boxes", "masks")


def check_spatial(example: Example) -> None:
    """Checks shapes, and that nothing would be left behind.

    Raises:
        ValueError: If the example has instances, which these functions do not move.
    """
    left_behind = [name for name in _INSTANCES if name in example]
    if left_behind:
        raise ValueError(
            f"this augmentation moves {', '.join(_PIXELS)}, and the example also "
            f"has {', '.join(left_behind)}. Use it for semantic segmentation only."
        )
    check_image(example)
    chex.assert_equal_shape_prefix([example[name] for name in _PIXELS], 2)


def check_image(example: Example) -> None:
    """Checks that the image is one [H, W, C] of floats."""
    chex.assert_rank(example["image"], 3)
    chex.assert_type(example["image"], jnp.floating)


def move(example: Example, change: Callable[[jax.Array], jax.Array]) -> Example:
    """Applies the same change of axes 0 and 1 to image, label and valid."""
    check_spatial(example)
    return {**example, **{name: change(example[name]) for name in _PIXELS}}


def check_at_least(least: int, **options: float | int) -> None:
    """Raises ValueError for an option that is below `least`, or not a number."""
    for name, value in options.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
