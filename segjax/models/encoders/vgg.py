"""VGG-16 as a feature extractor (Simonyan and Zisserman, 2015, arXiv:1409.1556)."""

import functools
from collections.abc import Sequence

import flax.linen as nn

from segjax import ops
from segjax.models import layers
from segjax.models.encoders.conv import check_no_mask
from segjax.typing import Array


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each followed by 2x2 max pooling.

    Names of parameters are those of `FCN`, whose default backbone is this network. With
    batch norm, convolutions have no bias; the import folds torchvision's into the mean.

    Attributes:
        convs: Number of convolutions per stage.
        widths: Channels per stage, as many as `convs`.
        norm: `layers.no_norm` (the paper's), `layers.batch_norm` or
            `layers.group_norm`.
        block: Module of a stage; may be wrapped in `models.remat`.
        axis_name: Mapped axis over which batch norm averages, in pmap.
    """

    convs: Sequence[int] = (2, 2, 3, 3, 3)
    widths: Sequence[int] = (64, 128, 256, 512, 512)
    norm: layers.Norm = layers.no_norm
    block: type[layers.ConvBlock] = layers.ConvBlock
    axis_name: str | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """Powers of two from 1; the last map is that after the last pooling."""
        return tuple(2**i for i in range(len(self.widths) + 1))

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool = False, pixel_mask: Array | None = None
    ) -> list[Array]:
        """[B, H, W, K] -> maps before each pooling, and the last one after it.

        Raises:
            ValueError: If there is a `pixel_mask`, which is not supported.
        """
        check_no_mask("VGG", pixel_mask)
        maps = []
        stages = zip(self.convs, self.widths, strict=True)
        for i, (convs, width) in enumerate(stages):
            stage = self.block(
                width,
                convs=convs,
                norm=self.norm,
                axis_name=self.axis_name,
                name=f"stage{i + 1}",
            )
            maps.append(stage(x, train=train))
            x = ops.max_pool_2x2(maps[-1])
        return [*maps, x]


vgg16 = functools.partial(VGG)
"""VGG-16 without classifier; takes the attributes of `VGG`."""

vgg16_bn = functools.partial(VGG, norm=layers.batch_norm)
"""VGG-16 with batch norm."""
