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


def split_ignored(label: Array) -> tuple[Array, Array]:
    """Splits a stored label map into class ids and `valid`.

    Args:
        label: [..., H, W] uint8 or uint16, with `ignore_index` of its dtype for ignored
            pixels.

    Returns:
        `label` int32, 0 where ignored, so that it is a valid index; and `valid` bool,
        False where ignored.
    """
    valid = label != ignore_index(label.dtype)
    return jnp.where(valid, label, 0).astype(jnp.int32), valid
