"""EfficientNet-Lite 0 to 4 as feature extractors.

EfficientNets without squeeze-and-excitation and with relu6, for devices that run them
fast; the stem is not scaled.

Reference:
    Tan and Le, EfficientNet, 2019, arXiv:1905.11946. Lite variants: tensorflow/tpu,
    models/official/efficientnet/lite.
"""

import functools
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from segjax import ops
from segjax.models import layers, region
from segjax.typing import Array

EFFICIENTNET_LITE = ops.normalize(127 / 255, 128 / 255)
"""The preprocessing of the published weights: (pixel - 127) / 128."""

EPSILON = 1e-3
"""Epsilon of the published networks' batch norms."""

batch_norm = functools.partial(layers.batch_norm, epsilon=EPSILON)
"""`layers.batch_norm` with the epsilon of the published weights."""

# Stages: blocks, kernel size, stride, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32

_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class DepthwiseConv(nn.Module):
    """`ops.depthwise_conv` with a kernel of its own.

    Attributes:
        kernel_size: Side of the kernel.
        strides: Pixels between outputs.
    """

    kernel_size: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / strides, W / strides, C]."""
        size = self.kernel_size
        # Every output depends on one channel.
        init = nn.initializers.normal((2 / size**2) ** 0.5)
        kernel = self.param("kernel", init, (size, size, 1, x.shape[-1]))
        return ops.depthwise_conv(x, kernel, strides=self.strides)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and a shortcut.

    Attributes:
        width: Channels of the result.
        kernel_size: Of the depthwise convolution.
        strides: Of the depthwise convolution.
        expansion: Channels inside, relative to those of the input.
        norm: One of the norms in `layers`.
        axis_name: Passed to the norm.
    """

    width: int
    kernel_size: int = 3
    strides: int = 1
    expansion: int = 6
    norm: layers.Norm = batch_norm
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool, pixel_mask: Array | None = None
    ) -> Array:
        """[B, H, W, *] -> [B, H / strides, W / strides, width]."""
        y = x
        if self.expansion > 1:
            expand = self._conv(self.expansion * x.shape[-1], 1, 1, "expand")
            y = _relu6(expand(x, train=train, pixel_mask=pixel_mask))
        depthwise = self._conv(None, self.kernel_size, self.strides, "depthwise")
        y = _relu6(depthwise(y, train=train, pixel_mask=pixel_mask))
        after = region.stride(pixel_mask, self.strides)
        project = self._conv(self.width, 1, 1, "project")
        y = project(y, train=train, pixel_mask=after)
        return x + y if x.shape == y.shape and self.strides == 1 else y

    def _conv(
        self, features: int | None, kernel_size: int, strides: int, name: str
    ) -> "_Conv":
        return _Conv(
            features, kernel_size, strides, self.norm, self.axis_name, name=name
        )


class _Conv(nn.Module):
    """A convolution with TensorFlow's SAME padding, then a norm."""

    features: int | None  # None: depthwise.
    kernel_size: int
    strides: int
    norm: layers.Norm
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, *, train: bool, pixel_mask: Array | None) -> Array:
        if self.kernel_size > 1:
            x = region.zero_outside(x, pixel_mask)
        if self.features is None:
            x = DepthwiseConv(self.kernel_size, self.strides, name="conv")(x)
        else:
            x = layers.Conv(
                self.features,
                self.kernel_size,
                strides=self.strides,
                use_bias=False,
                kernel_init=_fan_out,
                name="conv",
            )(x)
        mask = region.stride(pixel_mask, self.strides)
        return self.norm(x, train=train, axis_name=self.axis_name, mask=mask)


class EfficientNetLite(nn.Module):
    """Computes feature maps of an image at strides 2, 4, 8, 16 and 32.

    Attributes:
        width: Factor of the channels of all stages, rounded to multiples of 8.
        depth: Factor of the blocks of all stages except the first and the last.
        norm: `efficientnet_lite.batch_norm`, `layers.frozen_norm` (the imported
            statistics, not trained) or `layers.group_norm`.
        block: Module of a block; may be wrapped in `models.remat`.
        axis_name: Mapped axis over which batch norm averages, in pmap.
    """

    width: float = 1.0
    depth: float = 1.0
    norm: layers.Norm = batch_norm
    block: type[InvertedBottleneck] = InvertedBottleneck
    axis_name: str | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """2, 4, 8, 16 and 32."""
        return 2, 4, 8, 16, 32

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool = False, pixel_mask: Array | None = None
    ) -> list[Array]:
        """Computes the features, in the dtype of `x`.

        Args:
            x: [B, H, W, K], as `EFFICIENTNET_LITE` normalizes it for published weights.
            train: Passed to the norms.
            pixel_mask: As in `ResNet`.

        Returns:
            Five maps [B, H / s, W / s, *], sizes rounded up, for s = 2, 4, 8, 16, 32.
            With width 1, they have 32, 24, 40, 112 and 320 channels.
        """
        stem = _Conv(_STEM, 3, 2, self.norm, self.axis_name, name="stem")
        x = _relu6(stem(x, train=train, pixel_mask=pixel_mask))
        pixel_mask = region.stride(pixel_mask, 2)
        maps: list[Array] = [x]
        for i, (width, kernel_size, strides, expansion) in enumerate(self._blocks()):
            if strides > 1 and i > 1:
                maps.append(x)
            block = self.block(
                width,
                kernel_size,
                strides,
                expansion,
                norm=self.norm,
                axis_name=self.axis_name,
                name=f"block{i}",
            )
            x = block(x, train=train, pixel_mask=pixel_mask)
            pixel_mask = region.stride(pixel_mask, strides)
        return [*maps, x]

    def _blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """Yields width, kernel size, strides and expansion of every block."""
        last = len(_STAGES) - 1
        for i, (blocks, size, strides, expansion, width) in enumerate(_STAGES):
            if 0 < i < last:
                blocks = math.ceil(blocks * self.depth)
            for n in range(blocks):
                first = strides if n == 0 else 1
                yield _round_width(width * self.width), size, first, expansion


class Head(nn.Module):
    """The 1x1 convolution between the coarsest map and a classifier.

    Attributes:
        width: Channels of the result.
        norm: One of the norms in `layers`.
    """

    width: int = 1280
    norm: layers.Norm = batch_norm

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, *] -> [B, H, W, width]."""
        x = layers.Conv(
            self.width, 1, use_bias=False, kernel_init=_fan_out, name="conv"
        )(x)
        return _relu6(self.norm(x, train=train, axis_name=None))


def _round_width(width: float) -> int:
    """The nearest multiple of 8, and not below nine tenths."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _relu6(x: Array) -> jax.Array:
    # With the gradient 0 at 0 and 6, as in PyTorch; that of jnp.clip divides.
    return jax.lax.clamp(jnp.zeros((), x.dtype), x, jnp.asarray(6, x.dtype))


efficientnet_lite0 = functools.partial(EfficientNetLite)
"""EfficientNet-Lite0; takes the other attributes of `EfficientNetLite`."""

efficientnet_lite1 = functools.partial(EfficientNetLite, depth=1.1)
"""EfficientNet-Lite1."""

efficientnet_lite2 = functools.partial(EfficientNetLite, width=1.1, depth=1.2)
"""EfficientNet-Lite2."""

efficientnet_lite3 = functools.partial(EfficientNetLite, width=1.2, depth=1.4)
"""EfficientNet-Lite3."""

efficientnet_lite4 = functools.partial(EfficientNetLite, width=1.4, depth=1.8)
"""EfficientNet-Lite4."""
