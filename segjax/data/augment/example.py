"""What an augmentation moves, and what follows from it."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from segjax import ops
from segjax.typing import Array, Example

_PIXELS = ("image", "label", "valid")
_FIELDS = ("linear", "nearest")


def check_spatial(example: Example) -> None:
    """Checks shapes, and that nothing would be left behind.

    Raises:
        ValueError: If the example has boxes without masks, which cannot be moved.
    """
    if "boxes" in example and "masks" not in example:
        raise ValueError(
            f"this augmentation moves {', '.join(_PIXELS)} and masks, and finds boxes "
            f"by masks; the example has boxes without masks. Add the masks."
        )
    check_image(example)
    fields = jax.tree.leaves(maps_of(example))
    chex.assert_equal_shape_prefix([*(example[name] for name in _PIXELS), *fields], 2)
    if "masks" in example:
        chex.assert_shape(example["masks"], (None, *example["label"].shape))


def maps_of(example: Example) -> Example:
    """The further maps of an example, grouped by how they are resampled.

    Returns:
        `linear` and `nearest`, {name: [H, W, ...]} each, as far as they are there.
    """
    return {group: example[group] for group in _FIELDS if group in example}


def check_image(example: Example) -> None:
    """Checks that the image is one [H, W, C] of floats."""
    chex.assert_rank(example["image"], 3)
    chex.assert_type(example["image"], jnp.floating)


def move(
    example: Example, change: Callable[[Array], Array], *, size: Array | None = None
) -> Example:
    """Applies the same change of axes 0 and 1 to image, label, valid, masks and fields.

    Args:
        example: As the pipeline has it, on the device.
        change: [H, W, ...] to [H, W, ...].
        size: Where the example tells (height, width) of the image in the array: what
            they are after the change. All of the array unless given.
    """
    check_spatial(example)
    moved = {name: change(example[name]) for name in _PIXELS}
    moved |= jax.tree.map(change, maps_of(example))
    if "masks" in example:
        moved |= found(jax.vmap(change)(example["masks"]), example["object_mask"])
    if "size" in example:
        moved["size"] = whole(example) if size is None else size
    return {**example, **moved}


def found(masks: Array, object_mask: Array) -> Example:
    """Objects after their masks have moved.

    Args:
        masks: bool [N, H, W].
        object_mask: bool [N] slots that held an object.

    Returns:
        `masks`, their `boxes`, and `object_mask` without the objects of which nothing
        is left in the image.
    """
    object_mask = object_mask & jnp.any(masks, axis=(1, 2))
    return {
        "masks": masks,
        "boxes": ops.masks_to_boxes(masks),
        "object_mask": object_mask,
    }


def whole(example: Example) -> Array:
    """(height, width) of the array: what lies outside the image is part of it now."""
    return jnp.asarray(example["label"].shape, jnp.int32)


def check_at_least(least: int, **options: float | int) -> None:
    """Raises ValueError for an option that is below `least`, or not a number."""
    for name, value in options.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
