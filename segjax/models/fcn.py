"""FCN with a VGG-16 backbone (Long et al., 2015, arXiv:1411.4038).

Differs from the paper: SAME padding, where the paper pads the image by 100 pixels and
crops scores to fit; upsampling extends the edge scores beyond the border, where the
paper pads with zeros; score layers are initialized randomly except for those of skips;
and images in [0, 1] are not normalized further.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers
from segjax.models.encoders.encoder import Encoder
from segjax.typing import Array, Image, Logits

_RANDOM = nn.initializers.lecun_normal()


class FCN(nn.Module):
    """A fully convolutional classifier with skips from its finer stages.

    The parameters are those of the paper, so a VGG-16 can be loaded: `stage1` to
    `stage5`, `fc6`, `fc7`, and scores. The last upsampling is fixed bilinear
    interpolation; the others are initialized to it and learned.

    Attributes:
        num_classes: C, the channels of the logits.
        stride: Stride of the finest scores, in pixels: 32, 16 or 8 in the paper
            (FCN-32s, 16s, 8s); any power of two from 2 to 2**len(widths).
        widths: Channels per stage, finest first. A small backbone, such as
            `widths=(16, 32, 64), convs=(2, 2, 2), head_width=128, stride=2`, suits
            small images.
        convs: Number of 3x3 convolutions per stage, as many entries as `widths`.
        head_width: Channels of fc6 (7x7) and fc7 (1x1).
        norm: `layers.no_norm` (the paper's), `layers.batch_norm` or
            `layers.group_norm`, in the backbone; a norm helps training from scratch.
        block: Module of a stage; `models.remat(layers.ConvBlock)` takes less memory and
            more time.
        dropout: Dropout rate of the features of fc6 and fc7.
        axis_name: Mapped axis over which batch norm averages, in pmap.
        dtype: Dtype of the computation of backbone and head; parameters, scores and
            logits are float32.
        encoder: One of `models.encoders` in place of the backbone of `widths`, `convs`,
            `norm` and `block`, with variables under `encoder`. Scores are computed from
            its maps; those of a `VGG` are the maps before each pooling, unlike those of
            the default backbone.
    """

    num_classes: int
    stride: int = 8
    widths: Sequence[int] = (64, 128, 256, 512, 512)
    convs: Sequence[int] = (2, 2, 3, 3, 3)
    head_width: int = 4096
    norm: layers.Norm = layers.no_norm
    block: type[layers.ConvBlock] = layers.ConvBlock
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: Any = jnp.float32
    encoder: Encoder | None = None

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Logits:
        """[B, H, W, K] of any K, H and W -> [B, H, W, C] float32 logits.

        Images whose size is not a multiple of the backbone's stride are padded at the
        bottom and right by reflection, and the logits are cropped.
        """
        layers.check_image(image)
        self._check()
        height, width = image.shape[1:3]
        coarsest = self._strides()[-1]
        size = ops.round_up(height, coarsest), ops.round_up(width, coarsest)
        x = ops.reflect_pad(image, size).astype(self.dtype)
        pools = self._body(x, train=train)
        scores = self._score(self._head(pools[-1], train=train), "score")
        for i in reversed(range(len(pools) - 1)):
            if 2 ** (i + 1) < self.stride:
                break
            scores = layers.BilinearConv(self.num_classes, name=f"upscore{i + 1}")(
                scores
            )
            # Zeros, so that the finer net starts with the prediction of the coarser
            # one.
            scores += self._score(
                pools[i], f"score_pool{i + 1}", kernel_init=nn.initializers.zeros
            )
        return ops.resize_bilinear(scores, size)[:, :height, :width]

    def _body(self, x: Array, *, train: bool) -> list[Array]:
        """The features of every stage, of strides 2, 4, ..."""
        if self.encoder is not None:
            maps = zip(self.encoder(x, train=train), self.encoder.strides, strict=True)
            return [x for x, stride in maps if stride > 1]
        pools = []
        for i, (width, convs) in enumerate(zip(self.widths, self.convs, strict=True)):
            stage = self.block(
                width,
                convs=convs,
                norm=self.norm,
                axis_name=self.axis_name,
                name=f"stage{i + 1}",
            )
            x = ops.max_pool_2x2(stage(x, train=train))
            pools.append(x)
        return pools

    def _head(self, x: Array, *, train: bool) -> Array:
        """The hidden layers of the classifier, as convolutions."""
        for name, kernel_size in (("fc6", 7), ("fc7", 1)):
            x = layers.Conv(self.head_width, kernel_size, name=name)(x)
            x = nn.Dropout(self.dropout)(nn.relu(x), deterministic=not train)
        return x

    def _score(
        self,
        x: Array,
        name: str,
        kernel_init: Any = _RANDOM,
    ) -> Array:
        conv = layers.Conv(self.num_classes, 1, kernel_init=kernel_init, name=name)
        return conv(x.astype(jnp.float32))

    def _strides(self) -> tuple[int, ...]:
        """The strides of the stages."""
        if self.encoder is None:
            return tuple(2**i for i in range(1, len(self.widths) + 1))
        return tuple(stride for stride in self.encoder.strides if stride > 1)

    def _check(self) -> None:
        if len(self.widths) != len(self.convs):
            raise UserError(
                f"FCN needs equally many widths and convs, got {len(self.widths)} and "
                f"{len(self.convs)}. Give one number per stage for both."
            )
        strides = self._strides()
        if strides != tuple(2**i for i in range(1, len(strides) + 1)):
            raise UserError(
                f"FCN needs an encoder whose strides double, got {strides}. Use "
                f"output_stride=32."
            )
        if self.stride not in strides:
            raise UserError(
                f"FCN with {len(strides)} stages needs a stride in {list(strides)}, "
                f"got {self.stride}. Choose one of these."
            )
