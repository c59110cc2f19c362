"""Stored label maps: class ids, and one id for ignored pixels."""

import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.typing import Array


def ignore_index(dtype: np.typing.DTypeLike) -> int:
    """Returns the id of ignored pixels: 255 in uint8 labels, 65535 in uint16.

    Raises:
        ValueError: For any other dtype.
    """
    if np.dtype(dtype) not in (np.uint8, np.uint16):
        raise UserError(
            f"A label without `valid` needs dtype uint8 (255 is ignored) or uint16 "
            f"(65535 is ignored), got {np.dtype(dtype)}. Store it so, or add `valid`."
        )
    return int(np.iinfo(dtype).max)


def split_ignored(
    label: Array, *, ignore_index: int | None = None
) -> tuple[Array, Array]:
    """Splits a stored label map into class ids and `valid`.

    Losses and metrics take `valid` in place of an `ignore_index`, since it can be any
    mask. For labels with an ignored id:

        losses.soft_dice(logits, *ops.split_ignored(labels, ignore_index=-1))

    Args:
        label: [..., H, W] class ids of an integer dtype.
        ignore_index: The id of ignored pixels; None for 255 in uint8 labels and 65535
            in uint16.

    Returns:
        `label` int32, 0 where ignored, so that it is a valid index; and `valid` bool,
        False where ignored.

    Raises:
        ValueError: If the dtype is no integer type, or cannot have the id; without
            `ignore_index`, if it is not uint8 or uint16.
    """
    if ignore_index is None:
        ignore_index = _ignore_index(label.dtype)
    elif not jnp.issubdtype(label.dtype, jnp.integer):
        raise UserError(f"label needs an integer dtype, got {label.dtype}.")
    limits = np.iinfo(label.dtype)
    if not limits.min <= ignore_index <= limits.max:
        raise UserError(
            f"ignore_index needs an id of {label.dtype}, got {ignore_index}. Use the "
            f"id that the labels have: -1 in uint8 is 255."
        )
    valid = label != ignore_index
    return jnp.where(valid, label, 0).astype(jnp.int32), valid


_ignore_index = ignore_index  # `split_ignored` has an argument of this name.
