"""Operations by channel: bias, batch norm and group norm, with fast sums over pixels.

Most of their time is in sums over the pixels of every channel, some of them in the
gradient. Two forms here are faster than the obvious one (docs/speed.md): on a CPU,
pixels are added in rows of several pixels, which XLA vectorizes; and the gradient of a
norm needs two sums where that of the formula has four.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from segjax.typing import Array

_ROW, _RUN = 512, 16
"""Numbers of a row, and rows that are added first, on a CPU. XLA splits longer sums in
two, and then no longer computes what is summed on the way."""


@jax.jit  # So that `onednn.fused` finds it in a program, by its name.
def add_bias(x: Float[Array, "b h w c"], bias: Float[Array, " c"]) -> jax.Array:
    """Adds a number to each channel.

    Args:
        x: [B, H, W, C].
        bias: [C], converted to the dtype of `x`.

    Returns:
        [B, H, W, C].
    """
    rows = _Rows(x.shape)
    moved = rows.split(x) + rows.spread(jnp.asarray(bias, x.dtype)[None])
    return moved.reshape(x.shape)


def normalize_batch(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    mask: Bool[Array, "b h w 1"] | None = None,
    axis_name: str | None = None,
    epsilon: float = 1e-5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each channel by its mean and variance over all images and pixels.

    Args:
        x: [B, H, W, C], of any float dtype; computed in float32 or float64.
        scale: [C], multiplied with the normalized channels.
        bias: [C], added.
        mask: Broadcastable to [B, H, W, 1]; True where a pixel is included in mean and
            variance. Without any, both are 0. All pixels unless given.
        axis_name: Mapped axis of more images that are included.
        epsilon: Added to the variance.

    Returns:
        The result [B, H, W, C] in the dtype of `x`, and mean and (biased) variance,
        float32 [C].

    Reference:
        Ioffe and Szegedy, Batch Normalization, 2015. arXiv:1502.03167.
    """
    over = _Average(groups=None, axis_name=axis_name)
    y, mean, variance = _normalize(over, epsilon, *_floats(x, mask, scale, bias))
    return y.astype(x.dtype), mean[0], variance[0]


def normalize_groups(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    groups: int,
    mask: Bool[Array, "b h w 1"] | None = None,
    epsilon: float = 1e-6,
) -> jax.Array:
    """Normalizes groups of channels by their mean and variance in each image.

    Args:
        x: [B, H, W, C], of any float dtype; computed in float32 or float64.
        scale: [C], multiplied with the normalized channels.
        bias: [C], added.
        groups: Number of groups of consecutive channels; divides C.
        mask: As in `normalize_batch`.
        epsilon: Added to the variance.

    Returns:
        [B, H, W, C] in the dtype of `x`.

    Reference:
        Wu and He, Group Normalization, 2018. arXiv:1803.08494.
    """
    over = _Average(groups=groups, axis_name=None)
    y, _, _ = _normalize(over, epsilon, *_floats(x, mask, scale, bias))
    return y.astype(x.dtype)


def _floats(x, mask, scale, bias):
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*x.shape[:3], 1))
    scale, bias = (jnp.asarray(p)[None] for p in (scale, bias))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.asarray(x, dtype), mask, scale, bias


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _normalize(over: "_Average", epsilon: float, x, mask, scale, bias):
    """Result [B, H, W, C], mean and variance [B or 1, C]; scale and bias are [1, C]."""
    rows = _Rows(x.shape)
    mean = over(rows, rows.split(x), mask)
    centered = rows.split(x) - rows.spread(mean)
    variance = over(rows, jnp.square(centered), mask)
    factor = jax.lax.rsqrt(variance + epsilon) * scale
    y = centered * rows.spread(factor) + rows.spread(bias)
    return y.reshape(x.shape), mean, variance


@_normalize.defjvp
def _normalize_jvp(over: "_Average", epsilon: float, primals, tangents):
    """Every sum of the tangent is read by one `spread`, and so is its transpose."""
    x, mask, scale, bias = primals
    x_dot, _, scale_dot, bias_dot = tangents
    y, mean, variance = _normalize(over, epsilon, x, mask, scale, bias)
    rows = _Rows(x.shape)
    inverse = jax.lax.rsqrt(variance + epsilon)
    normalized = (rows.split(x) - rows.spread(mean)) * rows.spread(inverse)
    moved = rows.split(x_dot)
    mean_dot = over(rows, moved, mask)
    product_dot = over(rows, moved * normalized, mask)
    factor = inverse * scale
    y_dot = (
        moved * rows.spread(factor)
        + rows.spread(bias_dot - factor * mean_dot)
        + normalized * rows.spread(scale_dot - factor * product_dot)
    )
    variance_dot = 2 * product_dot / inverse
    return (y, mean, variance), (y_dot.reshape(x.shape), mean_dot, variance_dot)


class _Rows:
    """[B, H, W, C] as [S, R, P * C]: S parts of R rows of P pixels.

    The innermost axis is long enough to be vectorized with few channels, and the sum
    over R of every part is work for one core. Not on a CPU, S = B and P = 1.
    """

    def __init__(self, shape: tuple[Any, ...]):
        self.shape = shape
        batch, height, width, channels = shape
        pixels = height * width
        self._on_cpu = jax.default_backend() == "cpu"
        self._each, self._inner = 1, 1  # Pixels of a row, parts of an image.
        # Sizes of an exported program may be symbols.
        if self._on_cpu and isinstance(pixels, int) and pixels:
            self._each = math.gcd(pixels, _power_of_2(_ROW // channels))
            rows = pixels // self._each
            self._inner = rows // math.gcd(rows, _RUN)
        self._parts = batch * self._inner

    def split(self, x: Array) -> jax.Array:
        """[B, H, W, C] -> [S, R, P * C]."""
        _, height, width, channels = self.shape
        rows = height * width // (self._inner * self._each)
        return jnp.reshape(x, (self._parts, rows, self._each * channels))

    def spread(self, values: Array) -> jax.Array:
        """[B or 1, C] -> [S, 1, P * C]."""
        batch, channels = self.shape[0], self.shape[-1]
        inner = self._inner * self._each
        values = jnp.broadcast_to(values[:, None], (batch, inner, channels))
        return jnp.reshape(values, (self._parts, 1, self._each * channels))

    def sum(self, rows: Array) -> jax.Array:
        """[S, R, P * C] -> [B, C], summed over pixels."""
        sums = jnp.sum(rows, axis=1)
        if self._on_cpu:  # Without it, XLA would make one sum of the two.
            sums = jax.lax.optimization_barrier(sums)
        inner = self._inner * self._each
        split = (self.shape[0], inner, self.shape[-1])
        return jnp.sum(sums.reshape(split), axis=1)


@dataclasses.dataclass(frozen=True)
class _Average:
    """Averages over what is normalized together.

    Attributes:
        groups: Averages each image over groups of channels; None averages channels
            over all images.
        axis_name: Mapped axis of more images.
    """

    groups: int | None
    axis_name: str | None

    def __call__(self, rows: _Rows, values: Array, mask: Array | None) -> jax.Array:
        """[S, R, P * C] -> [B, C] in groups, else [1, C]."""
        shape = rows.shape
        if mask is None:
            sums, counts = rows.sum(values), jnp.asarray(shape[1] * shape[2])
        else:
            weights = rows.split(jnp.broadcast_to(mask, shape))
            sums = rows.sum(jnp.where(weights, values, 0))
            counts = jnp.sum(mask, axis=(1, 2), dtype=sums.dtype)
        counts = jnp.broadcast_to(counts, (shape[0], 1))
        if self.groups:
            grouped = sums.reshape(shape[0], self.groups, -1)
            grouped = jnp.broadcast_to(
                jnp.mean(grouped, axis=-1, keepdims=True), grouped.shape
            )
            sums = grouped.reshape(sums.shape)
        else:
            sums, counts = (jnp.sum(v, axis=0, keepdims=True) for v in (sums, counts))
        if self.axis_name:
            sums, counts = jax.lax.psum((sums, counts), self.axis_name)
        return sums / jnp.maximum(counts.astype(sums.dtype), 1)


def _power_of_2(limit: int) -> int:
    """The largest power of two up to `limit`, at least 1."""
    return 1 << max(limit.bit_length() - 1, 0)
