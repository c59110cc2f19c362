"""Between the image as stored (uint8) and as computed with (float)."""

import jax.numpy as jnp

from segjax.typing import Array


def to_float(image: Array) -> Array:
    """Maps stored pixels to [0, 1] on the device.

    Args:
        image: [..., H, W, 3] uint8 in 0..255, or a float image, which is returned
            unchanged.

    Returns:
        [..., H, W, 3] float32 in [0, 1].
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image
    return jnp.asarray(image, jnp.float32) / 255
