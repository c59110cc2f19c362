"""Applying a spatial transform to all entries of an example."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.typing import Array, Example

_PIXELS = ("image", "label", "valid")
_FIELDS = ("linear", "nearest")


def check_spatial(example: Example) -> None:
    """Checks shapes, and that all entries can be transformed.

    Raises:
        ValueError: If the example has boxes without masks.
    """
    if "boxes" in example and "masks" not in example:
        raise UserError(
            f"this augmentation transforms {', '.join(_PIXELS)} and masks, and "
            f"computes boxes from masks; the example has boxes without masks. Add the "
            f"masks."
        )
    check_image(example)
    fields = jax.tree.leaves(maps_of(example))
    chex.assert_equal_shape_prefix([*(example[name] for name in _PIXELS), *fields], 2)
    if "masks" in example:
        chex.assert_shape(example["masks"], (None, *example["label"].shape))


def maps_of(example: Example) -> Example:
    """Returns the further maps of an example, grouped by interpolation.

    Returns:
        `linear` and `nearest`, {name: [H, W, ...]} each, if present.
    """
    return {group: example[group] for group in _FIELDS if group in example}


def check_image(example: Example) -> None:
    """Checks that the image is a float array [H, W, C]."""
    chex.assert_rank(example["image"], 3)
    chex.assert_type(example["image"], jnp.floating)


def value_range(image: Array) -> tuple[Array, Array]:
    """Returns the darkest and brightest possible value: (0, 1), or wider.

    Images that were normalized, or not scaled, have the range of their own values.
    """
    return jnp.minimum(jnp.min(image), 0), jnp.maximum(jnp.max(image), 1)


def transform(
    example: Example, change: Callable[[Array], Array], *, size: Array | None = None
) -> Example:
    """Applies a transform of axes 0 and 1 to image, label, valid, masks and fields.

    Args:
        example: From the pipeline, on the device.
        change: Transforms [H, W, ...] to [H, W, ...].
        size: (height, width) of the image within the array after the transform, used if
            the example has `size`; the whole array by default.
    """
    check_spatial(example)
    new = {name: change(example[name]) for name in _PIXELS}
    new |= jax.tree.map(change, maps_of(example))
    if "masks" in example:
        new |= update_objects(jax.vmap(change)(example["masks"]), example)
    if "size" in example:
        new["size"] = array_size(example) if size is None else size
    return {**example, **new}


def update_objects(masks: Array, example: Example) -> Example:
    """Updates boxes and `object_mask` to transformed masks.

    Args:
        masks: bool [N, H, W], transformed.
        example: Before the transform, with `object_mask` bool [N].

    Returns:
        `masks`, their `boxes`, and `object_mask`, False also for objects without a
        pixel left in the image.
    """
    object_mask = example["object_mask"] & jnp.any(masks, axis=(1, 2))
    return {
        "masks": masks,
        "boxes": ops.masks_to_boxes(masks),
        "object_mask": object_mask,
    }


def array_size(example: Example) -> Array:
    """Returns (height, width) of the array, padding included."""
    return jnp.asarray(example["label"].shape, jnp.int32)


def check_at_least(minimum: int, **options: float | int) -> None:
    """Raises a ValueError for an option that is below `minimum` or NaN."""
    for name, value in options.items():
        if not value >= minimum:
            raise UserError(f"{name} must be at least {minimum}, got {value}.")
