"""Layers shared by several models.

Norms and upsamplings are functions that are called inside a compact method and passed
to models as arguments:

    norm(x, *, train, axis_name, mask=None) -> x
    upsample(x, features, *, name) -> x at twice the size, parameters under `name`

They compute in the dtype of `x`; parameters are float32. `mask`, bool [B, H, W, 1] or
[B, 1, 1, 1], excludes padding from the statistics of a norm.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from segjax import ops
from segjax.typing import Array, Key

Norm = Callable[..., Array]
Upsample = Callable[..., Array]

he_normal = nn.initializers.he_normal()
"""He et al., 2015, arXiv:1502.01852: preserves the variance through a ReLU."""


def group_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Normalizes groups of channels of each image.

    Args:
        x: [B, H, W, C]. There are 8 groups, or the largest power of two below 8
            that divides C.
        train: Ignored: there is no state.
        axis_name: Ignored.
        mask: True where a pixel is included in the statistics; at least one per image.

    Reference:
        Wu and He, Group Normalization, 2018. arXiv:1803.08494, with 8 groups.
    """
    del train, axis_name
    return GroupNorm(math.gcd(8, x.shape[-1]))(x, mask)


def batch_norm(
    x: Array,
    *,
    train: bool,
    axis_name: str | None,
    mask: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """Normalizes channels over the batch, with running averages in `batch_stats`.

    Args:
        x: [B, H, W, C].
        train: True normalizes by this batch and updates the averages (the collection
            must be mutable), False normalizes by the averages.
        axis_name: Mapped axis to average over as well, so that pmap equals one program
            over the whole batch (with a mask, only if devices have equal numbers of
            True pixels).
        mask: True where a pixel is included in the statistics.
        epsilon: Added to the variance.

    Reference:
        Ioffe and Szegedy, Batch Normalization, 2015. arXiv:1502.03167.
    """
    return BatchNorm(axis_name, epsilon)(x, mask, train=train)


def frozen_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Batch norm with fixed statistics and weights: `x * scale + bias`.

    Scale and bias are in the collection `frozen`, not among the parameters, so they are
    not trained. They are initialized to 1 and 0, and set by the import of a pretrained
    network, whose statistics are folded into them.

    Args:
        x: [B, H, W, C].
        train: Ignored.
        axis_name: Ignored.
        mask: Ignored.
    """
    del train, axis_name, mask
    return FrozenNorm()(x)


def no_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Returns `x`. Convolutions have a bias with this norm only."""
    del train, axis_name, mask
    return x


class GroupNorm(nn.Module):
    """`ops.normalize_groups` with its parameters, as `nn.GroupNorm` has them.

    Attributes:
        groups: Number of groups; divides the channels.
    """

    groups: int

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        scale, bias = _scale_and_bias(self, x.shape[-1])
        return ops.normalize_groups(x, scale, bias, groups=self.groups, mask=mask)


class BatchNorm(nn.Module):
    """`ops.normalize_batch` with its parameters and averages, as in `nn.BatchNorm`.

    Attributes:
        axis_name: Mapped axis of more images, or None.
        epsilon: Added to the variance.
    """

    axis_name: str | None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, mask: Array | None, *, train: bool) -> Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        shape, epsilon, momentum = (x.shape[-1],), self.epsilon, 0.9
        scale, bias = _scale_and_bias(self, x.shape[-1])
        means = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variances = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            factor = jax.lax.rsqrt(variances.value + epsilon) * scale
            mean, factor, bias = (
                v[None, None, None] for v in (means.value, factor, bias)
            )
            return ((x - mean) * factor + bias).astype(x.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        y, *found = ops.normalize_batch(
            x, scale, bias, mask=mask, axis_name=axis_name, epsilon=epsilon
        )
        if not self.is_initializing():
            for average, new in zip((means, variances), found, strict=True):
                average.value = momentum * average.value + (1 - momentum) * new
        return y


def _scale_and_bias(module: nn.Module, channels: int) -> tuple[Array, Array]:
    return (
        module.param("scale", nn.initializers.ones, (channels,), jnp.float32),
        module.param("bias", nn.initializers.zeros, (channels,), jnp.float32),
    )


class FrozenNorm(nn.Module):
    """A fixed scale and bias per channel, in the collection `frozen`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        shape = (x.shape[-1],)
        scale = self.variable("frozen", "scale", jnp.ones, shape).value
        bias = self.variable("frozen", "bias", jnp.zeros, shape).value
        per_channel = (1,) * (x.ndim - 1) + shape
        scale, bias = (v.astype(x.dtype).reshape(per_channel) for v in (scale, bias))
        return x * scale + bias


class Conv(nn.Module):
    """`ops.conv` and a bias, with the parameters of `nn.Conv`.

    Attributes:
        features: Channels of the result.
        kernel_size: Height and width of the kernel, odd.
        padding: "SAME", or "VALID", which leaves out the pixels that read padding, or
            the zeros at every border.
        use_bias: Adds a bias.
        kernel_init: Initializer of the kernel.
        strides: Pixels between outputs.
        dilation: Pixels between entries of the kernel.
    """

    features: int
    kernel_size: int = 3
    padding: str | int = "SAME"
    use_bias: bool = True
    kernel_init: Any = he_normal
    strides: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H / strides, W / strides, features], dtype of `x`."""
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        kernel = kernel.astype(x.dtype)
        x = ops.conv(
            x,
            kernel,
            strides=self.strides,
            dilation=self.dilation,
            padding=self.padding,
        )
        if not self.use_bias:
            return x
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        return ops.add_bias(x, bias)


class ConvBlock(nn.Module):
    """(3x3 conv, norm, relu), repeated.

    Attributes:
        features: Channels of every convolution.
        convs: Number of convolutions.
        norm: One of the norms above, or a function like them.
        padding: "SAME", or "VALID", with which every convolution trims one pixel at
            each border.
        axis_name: Passed to the norm.
    """

    features: int
    convs: int = 2
    norm: Norm = group_norm
    padding: str = "SAME"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, H, W, *] -> [B, H, W, features], smaller by 2 * convs if VALID."""
        for _ in range(self.convs):
            x = Conv(
                self.features, padding=self.padding, use_bias=self.norm is no_norm
            )(x)
            x = nn.relu(self.norm(x, train=train, axis_name=self.axis_name))
        return x


class TransposedConv(nn.Module):
    """2x2 transposed convolution with stride 2.

    Equals `nn.ConvTranspose(features, (2, 2), (2, 2))`, with the same parameters.

    Attributes:
        features: Channels of the result.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, 2H, 2W, features]."""
        # Each output pixel depends on one input pixel, so the fan-in is I, not 4 * I.
        init = nn.initializers.variance_scaling(
            2.0, "fan_in", "truncated_normal", batch_axis=(0, 1)
        )
        kernel = self.param("kernel", init, (2, 2, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return ops.add_bias(ops.transposed_conv_2x2(x, kernel.astype(x.dtype)), bias)


class BilinearConv(nn.Module):
    """4x4 transposed convolution with stride 2, initialized to bilinear upsampling.

    Attributes:
        features: Channels of the input and of the result.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, features] -> [B, 2H, 2W, features]."""
        shape = (4, 4, self.features, self.features)
        kernel = self.param("kernel", bilinear_init, shape)
        return ops.transposed_conv_4x4(x, kernel.astype(x.dtype))


def bilinear_init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Initializes a kernel that upsamples each channel bilinearly, by half its size.

    Args:
        key: Ignored.
        shape: (2 * factor, 2 * factor, C, C).
        dtype: Dtype of the kernel.
    """
    del key
    kernel = ops.bilinear_kernel(shape[0] // 2)
    return (kernel[:, :, None, None] * jnp.eye(shape[2])[None, None]).astype(dtype)


def transposed(x: Array, features: int, *, name: str) -> Array:
    """Learned upsampling by a 2x2 transposed convolution, as in the U-Net paper."""
    return TransposedConv(features, name=name)(x)


def bilinear(x: Array, features: int, *, name: str) -> Array:
    """A 1x1 convolution, then bilinear interpolation to twice the size.

    The two commute, and in this order the convolution sees a quarter of the pixels.
    """
    x = Conv(features, 1, name=name)(x)
    return ops.resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))


def head(x: Array, num_classes: int, *, kernel_size: int = 1) -> Array:
    """The last convolution, in float32 for any dtype of `x`."""
    init = nn.linear.default_kernel_init
    conv = Conv(num_classes, kernel_size, kernel_init=init, name="head")
    return conv(x.astype(jnp.float32))


def check_image(image: Array) -> None:
    """Asserts shape [B, H, W, K] and floats, which excludes unscaled uint8 images."""
    chex.assert_rank(image, 4)
    chex.assert_type(image, float)
