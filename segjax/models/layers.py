"""Parts that several models are built of.

Norms and upsamplings are functions to call inside a compact method, so that a model
takes one as an argument:

    norm(x, *, train, axis_name, mask=None) -> x
    upsample(x, features, *, name) -> x at twice the size, parameters under `name`

They compute in the dtype of `x` and keep their parameters in float32. `mask`, bool and
[B, H, W, 1] or [B, 1, 1, 1], leaves padding out of a norm's statistics.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax.numpy as jnp

from segjax import ops
from segjax.typing import Array, Key

Norm = Callable[..., Array]
Upsample = Callable[..., Array]

he_normal = nn.initializers.he_normal()
"""He et al., 2015, arXiv:1502.01852: keeps the variance through a ReLU."""


def group_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Normalizes groups of channels, each image on its own.

    Args:
        x: [B, H, W, C]. There are 8 groups, or the largest power of two below 8
            that divides C.
        train: Without effect: there is no state.
        axis_name: Without effect.
        mask: True where a pixel is evaluated; at least one in every image.

    Reference:
        Wu and He, Group Normalization, 2018. arXiv:1803.08494, with 8 groups.
    """
    del train, axis_name
    if mask is not None:
        mask = jnp.broadcast_to(mask, x.shape)
    norm = nn.GroupNorm(num_groups=math.gcd(8, x.shape[-1]), dtype=x.dtype)
    return norm(x, mask=mask)


def batch_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Normalizes channels over the batch; running averages in `batch_stats`.

    Args:
        x: [B, H, W, C].
        train: True normalizes by this batch and updates the averages (the collection
            must be mutable), False normalizes by the averages.
        axis_name: Mapped axis to average over as well, so that pmap gives what one
            program over the whole batch gives (with a mask, as long as devices have
            equal numbers of pixels that count).
        mask: True where a pixel is evaluated.

    Reference:
        Ioffe and Szegedy, Batch Normalization, 2015. arXiv:1502.03167.
    """
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        # E[x**2] - E[x]**2 cancels where a channel hardly varies; no faster here.
        use_fast_variance=False,
        dtype=x.dtype,
        axis_name=axis_name,
    )
    return norm(x, mask=None if mask is None else jnp.asarray(mask))


def frozen_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Batch norm whose averages and weights stay as they are: `x * scale + bias`.

    Scale and bias are in the collection `frozen`, not among the parameters, so that
    neither gradients nor optimizers reach them; they start as 1 and 0, and importing
    a pretrained network sets them. Its statistics are folded into the two.

    Args:
        x: [B, H, W, C].
        train: Without effect.
        axis_name: Without effect.
        mask: Without effect.
    """
    del train, axis_name, mask
    return FrozenNorm()(x)


def no_norm(
    x: Array, *, train: bool, axis_name: str | None, mask: Array | None = None
) -> Array:
    """Returns `x`. Convolutions that go with it have a bias, the others have none."""
    del train, axis_name, mask
    return x


class FrozenNorm(nn.Module):
    """A fixed scale and bias a channel, in the collection `frozen`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        shape = (x.shape[-1],)
        scale = self.variable("frozen", "scale", jnp.ones, shape).value
        bias = self.variable("frozen", "bias", jnp.zeros, shape).value
        per_channel = (1,) * (x.ndim - 1) + shape
        scale, bias = (v.astype(x.dtype).reshape(per_channel) for v in (scale, bias))
        return x * scale + bias


class ConvBlock(nn.Module):
    """(3x3 conv, norm, relu), several times.

    Attributes:
        features: Channels of every convolution.
        convs: Number of convolutions.
        norm: One of the norms above, or a function like them.
        padding: "SAME", or "VALID", by which every convolution trims one pixel at
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
            x = nn.Conv(
                self.features,
                (3, 3),
                padding=self.padding,
                use_bias=self.norm is no_norm,
                dtype=x.dtype,
                kernel_init=he_normal,
            )(x)
            x = nn.relu(self.norm(x, train=train, axis_name=self.axis_name))
        return x


class TransposedConv(nn.Module):
    """2x2 transposed convolution with stride 2.

    Same parameters and values as `nn.ConvTranspose(features, (2, 2), (2, 2))`.

    Attributes:
        features: Channels of the result.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, 2H, 2W, features]."""
        # Each output pixel sees one input pixel, so the fan-in is I, not 4 * I.
        init = nn.initializers.variance_scaling(
            2.0, "fan_in", "truncated_normal", batch_axis=(0, 1)
        )
        kernel = self.param("kernel", init, (2, 2, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = ops.transposed_conv_2x2(x, kernel.astype(x.dtype))
        return x + bias.astype(x.dtype)[None, None, None, :]


class BilinearConv(nn.Module):
    """4x4 transposed convolution with stride 2 that starts as bilinear upsampling.

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
    """Kernel that upsamples each channel on its own, bilinearly, by half its size.

    Args:
        key: Not used: nothing is random.
        shape: (2 * factor, 2 * factor, C, C).
        dtype: Of the kernel.
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
    conv = nn.Conv(features, (1, 1), dtype=x.dtype, kernel_init=he_normal, name=name)
    x = conv(x)
    return ops.resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))


def head(x: Array, num_classes: int, *, kernel_size: int = 1) -> Array:
    """The last convolution, in float32 whatever the dtype of `x`."""
    size = (kernel_size, kernel_size)
    return nn.Conv(num_classes, size, dtype=jnp.float32, name="head")(x)


def check_image(image: Array) -> None:
    """Asserts [B, H, W, K] and floats: a uint8 image would pass as 0 to 255."""
    chex.assert_rank(image, 4)
    chex.assert_type(image, float)
