"""Convolutions and max pooling, without pretrained weights: the encoder of a U-Net."""

from collections.abc import Callable, Sequence

import flax.linen as nn

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers
from segjax.typing import Array


class ConvEncoder(nn.Module):
    """Blocks of 3x3 convolutions, with 2x2 max pooling between them.

    Attributes:
        widths: Channels per scale, finest first.
        norm: `layers.group_norm`, `layers.batch_norm` or `layers.no_norm`.
        block: Module of a scale; may be wrapped in `models.remat`.
        axis_name: Mapped axis over which batch norm averages, in pmap.
    """

    widths: Sequence[int] = (64, 128, 256, 512, 1024)
    norm: layers.Norm = layers.group_norm
    block: type[layers.ConvBlock] = layers.ConvBlock
    axis_name: str | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """Powers of two from 1."""
        return tuple(2**i for i in range(len(self.widths)))

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool = False, pixel_mask: Array | None = None
    ) -> list[Array]:
        """[B, H, W, K] -> maps [B, H / s, W / s, width], rounded down, for s = 1, 2..

        Raises:
            ValueError: If there is a `pixel_mask`, which is not supported.
        """
        check_no_mask("ConvEncoder", pixel_mask)

        def block(width: int, name: str) -> nn.Module:
            return self.block(
                width, norm=self.norm, axis_name=self.axis_name, name=name
            )

        return conv_maps(x, self.widths, block, train=train)


def conv_maps(
    x: Array,
    widths: Sequence[int],
    block: Callable[[int, str], nn.Module],
    *,
    train: bool,
) -> list[Array]:
    """Runs blocks `down0`, `down1`, ..., `bottom` with max pooling between them.

    Args:
        x: [B, H, W, K].
        widths: Channels per scale, finest first.
        block: `(width, name) -> module`.
        train: Passed to the blocks.

    Returns:
        The result of every block.
    """
    *down, bottom = widths
    maps = []
    for i, width in enumerate(down):
        maps.append(block(width, f"down{i}")(x, train=train))
        x = ops.max_pool_2x2(maps[-1])
    return [*maps, block(bottom, "bottom")(x, train=train)]


def check_no_mask(name: str, pixel_mask: Array | None) -> None:
    """Raises a ValueError if there is a mask, for encoders that do not support one."""
    if pixel_mask is not None:
        raise UserError(
            f"{name} does not support padded images. Use a ResNet or an EfficientNet-"
            f"Lite, or images of one size."
        )
