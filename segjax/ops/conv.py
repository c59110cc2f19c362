"""Convolutions whose fastest implementation depends on device and size."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.typing import Array

_MAX_PIXELS = 256


def conv_same(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """Convolution with stride 1 and SAME zero padding.

    On CPUs, large kernels on maps of at most 256 pixels (such as the 7x7 of an FCN's
    head) use a matrix product of patches, because XLA's convolution is slow there.
    Larger maps use XLA, because patches take K * L times the memory of the map, and so
    do maps of symbolic size, as in `segjax.export`. See docs/speed.md.

    Args:
        x: [B, H, W, I].
        kernel: [K, L, I, O], odd K and L.

    Returns:
        [B, H, W, O].
    """
    known = isinstance(x.shape[1], int) and isinstance(x.shape[2], int)
    small = known and x.shape[1] * x.shape[2] <= _MAX_PIXELS
    large_kernel = kernel.shape[0] * kernel.shape[1] > 9
    if jax.default_backend() == "cpu" and small and large_kernel:
        return conv_by_patches(x, kernel)
    return conv_by_xla(x, kernel)


def conv_by_xla(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """Computes `conv_same` as one XLA convolution."""
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_by_patches(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """Computes `conv_same` as one matrix product of patches of K * L * I inputs."""
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
