"""Depthwise convolution, whose fastest form depends on the device."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax import onednn
from segjax.errors import UserError
from segjax.ops.convolution import conv_by_xla
from segjax.typing import Array

_PARTIAL_SUMS = 8
_LARGE = 2**19
"""Entries of an image beyond which the kernel's gradient is faster image by image."""

Pads = tuple[tuple[int, int], tuple[int, int]]


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l 1 c"],
    *,
    strides: int = 1,
    dilation: int = 1,
) -> Float[Array, "b h2 w2 c"]:
    """Convolves each channel with its own kernel, with SAME zero padding.

    Equals `nn.Conv(C, (K, L), strides, feature_group_count=C, padding="SAME",
    kernel_dilation=dilation, use_bias=False)`. On CPUs it is a sum of shifted images,
    with explicit first derivatives (there is no forward mode), because XLA's grouped
    convolution is slow there; in float32 oneDNN computes it where the extra `onednn` is
    installed. See docs/speed.md.

    Args:
        x: [B, H, W, C].
        kernel: [K, L, 1, C].
        strides: Pixels between outputs.
        dilation: Pixels between entries of the kernel.

    Returns:
        [B, H / strides, W / strides, C], sizes rounded up.

    Raises:
        ValueError: If `strides` or `dilation` is below 1.
    """
    if strides < 1 or dilation < 1:
        raise UserError(
            f"depthwise_conv needs strides and dilation of at least 1, got {strides} "
            f"and {dilation}."
        )
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    spread = [dilation * (n - 1) + 1 for n in kernel.shape[:2]]
    rows, columns = jax.lax.padtype_to_pads(
        x.shape[1:3], spread, (strides, strides), "SAME"
    )
    pads: Pads = ((rows[0], rows[1]), (columns[0], columns[1]))
    if onednn.takes(x, kernel):
        compute = onednn.convolution
    elif jax.default_backend() == "cpu":
        return by_shifts(x, kernel, strides, dilation, pads)
    else:
        compute, kernel = conv_by_xla, kernel.astype(x.dtype)
    return compute(x, kernel, strides=strides, dilation=dilation, padding=pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def by_shifts(
    x: Array, kernel: Array, strides: int, dilation: int, pads: Pads
) -> jax.Array:
    """Computes `depthwise_conv` as a sum of shifted images."""
    return _shifts(x, kernel, strides, dilation, pads)


def _forward(x, kernel, strides, dilation, pads):
    def compute(x, kernel):
        return _shifts(x, kernel, strides, dilation, pads)

    return _apart(compute, x, kernel), (x, kernel)


def _backward(strides, dilation, pads, residuals, g):
    x, kernel = residuals

    def kernel_gradient(x, g):
        return _kernel_gradient(x, g, kernel.shape, strides, dilation, pads)

    def compute(x, kernel, g):
        dx = _input_gradient(g, kernel, x.shape, strides, dilation, pads)
        dkernel = _sum_over_images(kernel_gradient, x, g)
        return dx, dkernel.astype(kernel.dtype)

    return _apart(compute, x, kernel, g)


def _apart(compute: Callable, *args: Array) -> Any:
    """Returns `compute(*args)`, which XLA does not fuse with what is around it.

    It would compute a sum of shifted images again for each use of the result, of which
    there are several in training, and what is before it again for every shift: the
    training step of EfficientNet-Lite0 took 3.6 times as long. XLA does not fuse into
    branches, and does not know before it has fused that only one is ever taken.
    """
    shapes = jax.eval_shape(compute, *args)

    def never(*_):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    always = jax.lax.optimization_barrier(jnp.asarray(True))
    return jax.lax.cond(always, compute, never, *args)


def _sum_over_images(compute: Callable, x: Array, g: Array) -> jax.Array:
    if math.prod(x.shape[1:]) <= _LARGE:
        return compute(x, g)

    def add(total, pair):
        return total + compute(pair[0][None], pair[1][None]), None

    shape = jax.eval_shape(compute, x, g)
    return jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), (x, g))[0]


by_shifts.defvjp(_forward, _backward)


def _shifts(
    x: Array, kernel: Array, strides: int, dilation: int, pads: Pads
) -> jax.Array:
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    shape = _output_shape(padded, kernel, strides, dilation)
    total = jnp.zeros((), x.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            weight = kernel[i, j, 0].astype(x.dtype)[None, None, None]
            at = (i * dilation, j * dilation)
            total = total + _view(padded, at, shape, strides) * weight
    return total


def _input_gradient(
    g: Array,
    kernel: Array,
    shape: Sequence[int],
    strides: int,
    dilation: int,
    pads: Pads,
) -> jax.Array:
    """Convolves the gradient, zeros between its pixels, with the flipped kernel."""
    gaps = (0, 0, strides - 1)
    spread = jax.lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), gaps, gaps, (0, 0, 0)))
    around = []
    for axis in range(2):
        before = pads[axis][0]
        first = dilation * (kernel.shape[axis] - 1) - before
        around.append((first, shape[1 + axis] + before - spread.shape[1 + axis]))
    flipped = kernel[::-1, ::-1]
    return _shifts(spread, flipped, 1, dilation, (around[0], around[1]))


def _kernel_gradient(
    x: Array,
    g: Array,
    shape: Sequence[int],
    strides: int,
    dilation: int,
    pads: Pads,
) -> jax.Array:
    """Sums products of shifted images and the gradient, in float32.

    Products are first added in parts of the batch and of the rows, which vectorizes
    over channels; the rest is a product with a vector of ones. One reduction over all
    pixels would not vectorize on CPUs.
    """
    groups = max(n for n in range(1, _PARTIAL_SUMS + 1) if len(x) % n == 0)
    height, width, channels = g.shape[1:]
    block = -(-height // max(_PARTIAL_SUMS // groups, 1))
    blocks = -(-height // block)
    extra = block * blocks - height
    below = (pads[0][0], pads[0][1] + strides * extra)
    x = jnp.pad(x, ((0, 0), below, pads[1], (0, 0))).astype(jnp.float32)
    g = jnp.pad(g, ((0, 0), (0, extra), (0, 0), (0, 0))).astype(jnp.float32)
    images = len(x) // groups
    size = (images, block, width, channels)
    ones = jnp.ones((1, images * block * width), jnp.float32)
    sums = []
    for i in range(shape[0]):
        for j in range(shape[1]):
            total = jnp.zeros((), jnp.float32)
            for n in range(groups):
                part = slice(n * images, (n + 1) * images)
                for k in range(blocks):
                    at = (i * dilation + strides * block * k, j * dilation)
                    rows = g[part, k * block : (k + 1) * block]
                    total = total + _view(x[part], at, size, strides) * rows
            sums.append((ones @ total.reshape(-1, channels))[0])
    return jnp.stack(sums).reshape(*shape[:2], 1, channels)


def _view(
    x: Array, at: tuple[int, int], shape: Sequence[int], strides: int
) -> jax.Array:
    """Rows and columns of `x` from `at`, `strides` apart."""
    (top, left), (_, height, width, _) = at, shape
    bottom, right = (
        n + strides * (m - 1) + 1 for n, m in zip(at, (height, width), strict=True)
    )
    return jnp.asarray(x)[:, top:bottom:strides, left:right:strides]


def _output_shape(
    padded: Array, kernel: Array, strides: int, dilation: int
) -> tuple[int, int, int, int]:
    rows, columns = (
        (padded.shape[1 + i] - dilation * (kernel.shape[i] - 1) - 1) // strides + 1
        for i in range(2)
    )
    return padded.shape[0], rows, columns, padded.shape[3]
