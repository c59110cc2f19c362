"""Convolutions whose fastest form depends on the device and on the size."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.typing import Array

_MAX_PIXELS = 256


def conv_same(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """Convolution with stride 1 and zeros around, so that the size stays.

    Large kernels on small maps (the 7x7 of an FCN's head on the last features of its
    body) take a matrix product of patches on a CPU. Measured there, two cores, 7x7,
    in one run, XLA's convolution against the product: 4x4x256 to 2048, batch 8, 7,459
    and 35 ms, with gradient 10,445 and 102; 6x6x256 to 2048, batch 2, 6,192 and 23;
    12x12x512 to 1024, 113 and 80; 1x1x256 to 1024, 4 and 3. What is larger than 256
    pixels stays with XLA, since patches take as much memory as 49 copies of the map.

    Args:
        x: [B, H, W, I].
        kernel: [K, L, I, O], odd K and L.

    Returns:
        [B, H, W, O].
    """
    small = x.shape[1] * x.shape[2] <= _MAX_PIXELS
    large_kernel = kernel.shape[0] * kernel.shape[1] > 9
    if jax.default_backend() == "cpu" and small and large_kernel:
        return conv_by_patches(x, kernel)
    return conv_by_xla(x, kernel)


def conv_by_xla(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """`conv_same` as one convolution."""
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_by_patches(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """`conv_same` as one matrix product of all K * L * I inputs of each pixel."""
    batch, height, width, inputs = x.shape
    rows, columns, _, outputs = kernel.shape
    above, left = (rows - 1) // 2, (columns - 1) // 2
    pads = ((0, 0), (above, rows - 1 - above), (left, columns - 1 - left), (0, 0))
    padded = jnp.pad(x, pads)
    shifts = [
        padded[:, i : i + height, j : j + width]
        for i in range(rows)
        for j in range(columns)
    ]
    patches = jnp.concatenate(shifts, axis=-1)
    matrix = kernel.reshape(rows * columns * inputs, outputs)
    return (patches.reshape(-1, len(matrix)) @ matrix).reshape(
        batch, height, width, outputs
    )
