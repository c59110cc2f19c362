"""ResNets as feature extractors (He et al., 2015, arXiv:1512.03385).

As in torchvision ("v1.5"), and unlike the paper, the stride of a bottleneck is in its
3x3 convolution. There is no classifier.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers, region
from segjax.models.conv_norm import ConvNorm
from segjax.typing import Array

IMAGENET = ops.normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The preprocessing of torchvision's weights: mean and deviation of ImageNet's RGB."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18 and 34."""

    width: int
    strides: int = 1
    norm: layers.Norm = layers.frozen_norm
    axis_name: str | None = None
    dilation: int = 1

    expansion = 1

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool, pixel_mask: Array | None = None
    ) -> Array:
        """[B, H, W, *] -> [B, H / strides, W / strides, width]."""
        conv = functools.partial(ConvNorm, norm=self.norm, axis_name=self.axis_name)
        after = region.stride(pixel_mask, self.strides)
        y = conv(self.width, strides=self.strides, dilation=self.dilation, name="conv1")
        y = nn.relu(y(x, train=train, pixel_mask=pixel_mask))
        y = conv(self.width, dilation=self.dilation, name="conv2")(
            y, train=train, pixel_mask=after
        )
        if x.shape != y.shape:
            shortcut = conv(
                self.width, kernel_size=1, strides=self.strides, name="downsample"
            )
            x = shortcut(x, train=train, pixel_mask=pixel_mask)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut: the block of ResNet-50 and 101."""

    width: int
    strides: int = 1
    norm: layers.Norm = layers.frozen_norm
    axis_name: str | None = None
    dilation: int = 1

    expansion = 4

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool, pixel_mask: Array | None = None
    ) -> Array:
        """[B, H, W, *] -> [B, H / strides, W / strides, 4 * width]."""
        conv = functools.partial(ConvNorm, norm=self.norm, axis_name=self.axis_name)
        after = region.stride(pixel_mask, self.strides)
        out = self.expansion * self.width
        y = conv(self.width, kernel_size=1, name="conv1")
        y = nn.relu(y(x, train=train, pixel_mask=pixel_mask))
        y = conv(
            self.width, strides=self.strides, dilation=self.dilation, name="conv2"
        )(y, train=train, pixel_mask=pixel_mask)
        y = conv(out, kernel_size=1, name="conv3")(
            nn.relu(y), train=train, pixel_mask=after
        )
        if x.shape != y.shape:
            shortcut = conv(out, kernel_size=1, strides=self.strides, name="downsample")
            x = shortcut(x, train=train, pixel_mask=pixel_mask)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Computes feature maps of an image at strides 2, 4, 8, 16 and 32.

    Attributes:
        blocks: Number of blocks of each of the four stages.
        block: `BasicBlock` or `Bottleneck`; wrapped in `models.remat`, it takes less
            memory and more time.
        width: Channels of the stem and of the first stage's 3x3 convolutions; each
            stage doubles them.
        norm: `layers.frozen_norm` (for pretrained weights), `layers.batch_norm` or
            `layers.group_norm`.
        frozen_stages: Number of stages without gradient, counting the stem, from 0 to
            5; torchvision fine-tunes detectors with 2. Exclude their parameters from
            weight decay as well.
        axis_name: Mapped axis over which batch norm averages, in pmap.
        output_stride: 32, 16 or 8: stages that would exceed it have dilated
            convolutions instead of strides, as in DeepLab. The first block of such a
            stage has the dilation of the stage before, as in torchvision.
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    block: type[BasicBlock] | type[Bottleneck] = Bottleneck
    width: int = 64
    norm: layers.Norm = layers.frozen_norm
    frozen_stages: int = 0
    axis_name: str | None = None
    output_stride: int = 32

    @property
    def strides(self) -> tuple[int, ...]:
        """2, 4, 8, 16 and 32, or at most `output_stride`."""
        return tuple(min(2**i, self.output_stride) for i in range(1, 6))

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool = False, pixel_mask: Array | None = None
    ) -> list[Array]:
        """Computes the features, in the dtype of `x`.

        Args:
            x: [B, H, W, K], as `IMAGENET` normalizes it for pretrained weights.
            train: Passed to the norms.
            pixel_mask: bool [B, H, W, 1], True in a rectangle at the top left whose
                height and width are divisible by 32 or equal to H and W. Padding
                outside does not affect features inside. None: no padding.

        Returns:
            Five maps [B, H / s, W / s, *], sizes rounded up, for s in `strides`: that
            of the stem before max pooling, and one of each stage.

        Raises:
            ValueError: If `output_stride` is none of 32, 16 and 8.
        """
        if self.output_stride not in (8, 16, 32):
            raise UserError(
                f"ResNet needs output_stride 32, 16 or 8, got {self.output_stride}."
            )
        stem = ConvNorm(
            self.width, 7, 2, norm=self.norm, axis_name=self.axis_name, name="conv1"
        )
        x = nn.relu(stem(x, train=train, pixel_mask=pixel_mask))
        maps: list[Array] = [x]
        pixel_mask = region.stride(pixel_mask, 2)
        x = ops.max_pool_3x3(
            region.zero_outside(x, pixel_mask)
        )  # Values are at least 0 here.
        pixel_mask = region.stride(pixel_mask, 2)
        if self.frozen_stages > 0:
            maps, x = jax.lax.stop_gradient((maps, x))
        for stage, blocks in enumerate(self.blocks):
            for i in range(blocks):
                strides = self._stride(stage) if i == 0 else 1
                before = self._dilation(max(stage - 1, 0))
                block = self.block(
                    self.width * 2**stage,
                    strides,
                    norm=self.norm,
                    axis_name=self.axis_name,
                    dilation=before if i == 0 else self._dilation(stage),
                    name=f"layer{stage + 1}_{i}",
                )
                x = block(x, train=train, pixel_mask=pixel_mask)
                pixel_mask = region.stride(pixel_mask, strides)
            if self.frozen_stages > stage + 1:
                x = jax.lax.stop_gradient(x)
            maps.append(x)
        return maps

    def _stride(self, stage: int) -> int:
        """The stride of a stage's first block."""
        return 2 if stage > 0 and 4 * 2**stage <= self.output_stride else 1

    def _dilation(self, stage: int) -> int:
        return max(1, 4 * 2**stage // self.output_stride)


resnet18 = functools.partial(ResNet, (2, 2, 2, 2), block=BasicBlock)
"""ResNet-18 of He et al., table 1; takes the other attributes of `ResNet`."""

resnet34 = functools.partial(ResNet, (3, 4, 6, 3), block=BasicBlock)
"""ResNet-34."""

resnet50 = functools.partial(ResNet, (3, 4, 6, 3), block=Bottleneck)
"""ResNet-50."""

resnet101 = functools.partial(ResNet, (3, 4, 23, 3), block=Bottleneck)
"""ResNet-101."""
