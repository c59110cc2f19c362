"""Convolutions whose fastest implementation depends on device and size."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax import onednn
from segjax.typing import Array

_MAX_PIXELS = 256


def conv(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k l i o"],
    *,
    strides: int = 1,
    dilation: int = 1,
    padding: str | int = "SAME",
) -> Float[Array, "b h2 w2 o"]:
    """Convolution of images.

    A 1x1 kernel is a matrix product. On CPUs, large kernels on maps of at most 256
    pixels (such as the 7x7 of an FCN's head) use a matrix product of patches, because
    XLA's convolution is slow there; larger maps do not, because patches take K * L
    times the memory of the map, and neither do maps of symbolic size, as in
    `segjax.export`. What remains is computed by XLA, or in float32 on CPUs by oneDNN
    where the extra `onednn` is installed. See docs/speed.md.

    Args:
        x: [B, H, W, I].
        kernel: [K, L, I, O].
        strides: Pixels between outputs.
        dilation: Pixels between entries of the kernel.
        padding: "SAME" (TensorFlow's), "VALID", or the zeros at every border.

    Returns:
        [B, H2, W2, O]: with "SAME" H / strides, W / strides, rounded up.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    rows, columns = kernel.shape[:2]
    if rows == columns == 1 and padding in ("SAME", "VALID", 0):
        return conv_1x1(x[:, ::strides, ::strides], kernel)
    pixels = x.shape[1] * x.shape[2]
    small = isinstance(pixels, int) and pixels <= _MAX_PIXELS
    plain = strides == dilation == 1 and padding == "SAME"
    if jax.default_backend() == "cpu" and small and plain and rows * columns > 9:
        return conv_by_patches(x, kernel)
    compute = onednn.convolution if onednn.takes(x, kernel) else conv_by_xla
    around = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return compute(x, kernel, strides=strides, dilation=dilation, padding=around)


def conv_1x1(
    x: Float[Array, "b h w i"], kernel: Float[Array, "1 1 i o"]
) -> Float[Array, "b h w o"]:
    """Computes `conv` of a 1x1 kernel as a matrix product."""
    inputs, outputs = kernel.shape[2:]
    flat = jnp.reshape(x, (-1, inputs)) @ kernel[0, 0]
    return flat.reshape(*x.shape[:3], outputs)


def conv_by_xla(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k l j o"],
    *,
    strides: int = 1,
    dilation: int = 1,
    padding: str | onednn.Pads = "SAME",
) -> Float[Array, "b h2 w2 o"]:
    """Computes `conv` by XLA; in i / j groups, of which each has its own outputs."""
    return jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (strides, strides),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def conv_by_patches(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k l i o"]
) -> Float[Array, "b h w o"]:
    """Computes `conv` with SAME padding as one product of patches."""
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
