"""Changing the size of images and feature maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from segjax.errors import UserError
from segjax.ops import checks
from segjax.typing import Array


def resize_bilinear(
    x: Float[Array, "b h w c"] | Integer[Array, "b h w c"] | Bool[Array, "b h w c"],
    size: Sequence[int],
) -> jax.Array:
    """Bilinear interpolation between pixel centers, without antialiasing.

    Equals PyTorch's `interpolate(mode="bilinear", align_corners=False)`: pixel i is
    centered at i + 1/2, and edge pixels extend beyond the border.

    Args:
        x: [B, H, W, C].
        size: (height, width) of the result, in pixels.

    Returns:
        [B, height, width, C] in the dtype of `x`; float32 for integers and bools.

    Raises:
        ValueError: If x has another number of axes or no pixels, or size is not two
            whole numbers above 0.
    """
    checks.shapes(x=(x, "B H W C"))
    _check_pixels(x)
    checks.size("resize_bilinear", size)
    x = checks.floating("x", x)
    shape = (x.shape[0], *size, x.shape[3])
    return jax.image.resize(x, shape, method="linear", antialias=False)


def resize_nearest(x: Array, size: Sequence[int]) -> jax.Array:
    """Nearest-neighbor interpolation between pixel centers, for label maps.

    Equals PyTorch's `interpolate(mode="nearest-exact")`.

    Args:
        x: [B, H, W, ...] of any dtype.
        size: (height, width) of the result, in pixels.

    Returns:
        [B, height, width, ...] in the dtype of `x`.

    Raises:
        ValueError: If x has fewer axes or no pixels, or size is not two whole numbers
            above 0.
    """
    _check_pixels(x)
    checks.size("resize_nearest", size)
    return jax.image.resize(x, (x.shape[0], *size, *x.shape[3:]), method="nearest")


def transposed_conv_2x2(
    x: Float[Array, "b h w i"], kernel: Float[Array, "2 2 i o"]
) -> Float[Array, "b h2 w2 o"]:
    """Transposed convolution with a 2x2 kernel and stride 2.

    The blocks of the result do not overlap, so it is one matrix product from the input
    channels to the four pixels of a block. Kernels have the layout of
    `nn.ConvTranspose`: `kernel[1, 1]` gives the upper left pixel of each block.

    Args:
        x: [B, H, W, I].
        kernel: [2, 2, I, O].

    Returns:
        [B, 2H, 2W, O].
    """
    inputs, outputs = kernel.shape[2:]
    matrix = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(inputs, 4 * outputs)
    blocks = x.reshape(-1, inputs) @ matrix
    # A pixel's gradient is then rearranged once, for both matrix products that read it.
    blocks = jax.lax.optimization_barrier(blocks)
    return depth_to_space(blocks.reshape(*x.shape[:3], 4 * outputs), 2)


def transposed_conv_4x4(
    x: Float[Array, "b h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "b h2 w2 o"]:
    """Transposed convolution with a 4x4 kernel, stride 2 and edge padding.

    The edge pixels of `x` extend beyond the border. With the usual zero padding, the
    outermost pixels would lose part of their weight. A pixel of the result depends on
    2x2 pixels of `x`, so this is one 2x2 convolution to the four pixels of a block.
    Kernels have the layout of `nn.ConvTranspose`.

    Args:
        x: [B, H, W, I].
        kernel: [4, 4, I, O].

    Returns:
        [B, 2H, 2W, O], the center of the transposed convolution.
    """
    inputs, outputs = kernel.shape[2:]
    # Entry 2 * m + r: neighbor m of the block, pixel 1 - r of the block.
    split = jnp.reshape(kernel, (2, 2, 2, 2, inputs, outputs))[:, ::-1, :, ::-1]
    blocks = split.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, inputs, 4 * outputs)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    x = jax.lax.conv_general_dilated(
        x, blocks, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return depth_to_space(x, 2)[:, 1:-1, 1:-1]


def depth_to_space(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b y x o"]:
    """Rearranges channels into blocks of pixels.

    Args:
        x: [B, H, W, factor * factor * O], channels ordered (row, column, O).
        factor: Pixels along the side of a block.

    Returns:
        [B, factor * H, factor * W, O].

    Raises:
        ValueError: If factor * factor does not divide the channels.
    """
    checks.shapes(x=(x, "B H W C"))
    checks.whole_number("depth_to_space", "factor", factor, least=1)
    if x.shape[3] % factor**2:
        raise UserError(
            f"depth_to_space needs channels divisible by factor**2 = {factor**2}, got "
            f"{x.shape[3]}. Use another factor."
        )
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * factor, w * factor, c // factor**2)


def bilinear_kernel(factor: int) -> jax.Array:
    """Computes the kernel of a transposed convolution that interpolates bilinearly.

    Args:
        factor: Stride, in pixels; even, so that the kernel has a center.

    Returns:
        [2 * factor, 2 * factor] float32, symmetric; sums to factor**2.

    Raises:
        ValueError: If factor is not an even number above 0.
    """
    checks.whole_number("bilinear_kernel", "factor", factor, least=1)
    if factor % 2:
        raise UserError(
            f"bilinear_kernel needs an even factor, got {factor}. Use {factor + 1}."
        )
    steps = jnp.arange(2 * factor, dtype=jnp.float32) + 0.5
    ramp = 1 - jnp.abs(steps / factor - 1)
    return ramp[:, None] * ramp[None, :]


def _check_pixels(x: Array) -> None:
    if np.ndim(x) < 3 or 0 in np.shape(x)[1:3]:
        raise UserError(
            f"x needs shape [B, H, W, ...] with at least one pixel, got "
            f"{list(np.shape(x))}. Add the batch axis."
        )
