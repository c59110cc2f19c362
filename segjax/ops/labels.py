"""Label maps as stored: class ids, and one id that means "no class"."""

import jax.numpy as jnp
import numpy as np

from segjax.typing import Array


def ignore_index(dtype: np.typing.DTypeLike) -> int:
    """The id of pixels without a class: 255 in uint8 labels, 65535 in uint16.

    Raises:
        ValueError: For a dtype that has no such id.
    """
    if np.dtype(dtype) not in (np.uint8, np.uint16):
        raise ValueError(
            f"A label without `valid` needs dtype uint8 (255 is ignored) or uint16 "
            f"(65535 is ignored), got {np.dtype(dtype)}. Store it so, or add `valid`."
        )
    return int(np.iinfo(dtype).max)


def split_ignored(label: Array) -> tuple[Array, Array]:
    """Class ids as int32, and which pixels have one.

    Args:
        label: [..., H, W] uint8 or uint16; `ignore_index` of its dtype is no class.

    Returns:
        `label` int32, 0 where a pixel has no class, so that any lookup is safe; and
        `valid` bool.
    """
    valid = label != ignore_index(label.dtype)
    return jnp.where(valid, label, 0).astype(jnp.int32), valid
