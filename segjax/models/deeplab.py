"""DeepLabV3 and V3+, and a plain head on a dilated encoder, as in torchvision.

Reference:
    Chen et al., Rethinking Atrous Convolution, 2017, arXiv:1706.05587 (V3), and
    Encoder-Decoder with Atrous Separable Convolution, 2018, arXiv:1802.02611 (V3+).
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from segjax import ops
from segjax.models import layers
from segjax.models.conv_norm import ConvNorm
from segjax.models.decoders.aspp import ASPP
from segjax.models.encoders.encoder import Encoder, map_at
from segjax.models.encoders.resnet import resnet50
from segjax.typing import Array, Image, Logits


class DeepLabV3(nn.Module):
    """An encoder, atrous spatial pyramid pooling, and a 3x3 convolution.

    The default encoder is that of torchvision's `deeplabv3_resnet50`. Logits of its
    coarsest stride are interpolated to the image's size.

    Attributes:
        num_classes: C, the channels of the logits.
        encoder: One of `models.encoders`; its coarsest map is used. The paper's have
            output stride 16 or 8.
        rates: Dilations of the ASPP: (12, 24, 36) for stride 8, (6, 12, 18) for 16.
        features: Channels of the head.
        norm: Norm of the head.
        dropout: Dropout rate of the ASPP's result.
        axis_name: Mapped axis over which batch norm averages, in pmap.
        dtype: Dtype of the computation; parameters, the last convolution and logits are
            float32.
    """

    num_classes: int
    encoder: Encoder = resnet50(norm=layers.batch_norm, output_stride=8)
    rates: tuple[int, ...] = (12, 24, 36)
    features: int = 256
    norm: layers.Norm = layers.batch_norm
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Logits:
        """[B, H, W, K] of any K, H and W -> [B, H, W, C] float32 logits."""
        layers.check_image(image)
        conv = functools.partial(ConvNorm, norm=self.norm, axis_name=self.axis_name)
        x = self.encoder(image.astype(self.dtype), train=train)[-1]
        x = ASPP(
            self.features,
            rates=self.rates,
            norm=self.norm,
            dropout=self.dropout,
            axis_name=self.axis_name,
            name="aspp",
        )(x, train=train)
        x = nn.relu(conv(self.features, name="conv")(x, train=train))
        logits = layers.head(x, self.num_classes)
        return ops.resize_bilinear(logits, image.shape[1:3])


class DeepLabV3Plus(nn.Module):
    """DeepLabV3 with a decoder that adds the encoder's map of stride 4.

    Differs from the paper: convolutions of ASPP and decoder are not separable.

    Attributes:
        num_classes: C, the channels of the logits.
        encoder: One of `models.encoders` with a map of stride 4.
        rates: Dilations of the ASPP.
        features: Channels of ASPP and decoder.
        fine_features: Channels to which the map of stride 4 is projected.
        norm: Norm of ASPP and decoder.
        dropout: Dropout rate of the ASPP's result.
        axis_name: Mapped axis over which batch norm averages, in pmap.
        dtype: As in `DeepLabV3`.
    """

    num_classes: int
    encoder: Encoder = resnet50(norm=layers.batch_norm, output_stride=16)
    rates: tuple[int, ...] = (6, 12, 18)
    features: int = 256
    fine_features: int = 48
    norm: layers.Norm = layers.batch_norm
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Logits:
        """[B, H, W, K] of any K, H and W -> [B, H, W, C] float32 logits.

        Raises:
            ValueError: If the encoder has no map of stride 4.
        """
        layers.check_image(image)
        conv = functools.partial(ConvNorm, norm=self.norm, axis_name=self.axis_name)
        maps = self.encoder(image.astype(self.dtype), train=train)
        fine = map_at(self.encoder, maps, 4, user="DeepLabV3Plus")
        fine = conv(self.fine_features, kernel_size=1, name="project")(
            fine, train=train
        )
        x = ASPP(
            self.features,
            rates=self.rates,
            norm=self.norm,
            dropout=self.dropout,
            axis_name=self.axis_name,
            name="aspp",
        )(maps[-1], train=train)
        x = ops.resize_bilinear(x, fine.shape[1:3])
        x = jnp.concatenate([x, nn.relu(fine)], axis=-1)
        for i in range(2):
            x = nn.relu(conv(self.features, name=f"conv{i}")(x, train=train))
        logits = layers.head(x, self.num_classes)
        return ops.resize_bilinear(logits, image.shape[1:3])


class DilatedFCN(nn.Module):
    """A 3x3 convolution on an encoder's coarsest map: torchvision's `fcn_resnet50`.

    Attributes:
        num_classes: C, the channels of the logits.
        encoder: One of `models.encoders`.
        features: Channels of the convolution; torchvision's is a quarter of the map's.
        norm: Norm of the head.
        dropout: Dropout rate of the convolution's result.
        axis_name: Mapped axis over which batch norm averages, in pmap.
        dtype: As in `DeepLabV3`.
    """

    num_classes: int
    encoder: Encoder = resnet50(norm=layers.batch_norm, output_stride=8)
    features: int = 512
    norm: layers.Norm = layers.batch_norm
    dropout: float = 0.1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Logits:
        """[B, H, W, K] of any K, H and W -> [B, H, W, C] float32 logits."""
        layers.check_image(image)
        x: Array = self.encoder(image.astype(self.dtype), train=train)[-1]
        conv = ConvNorm(
            self.features, norm=self.norm, axis_name=self.axis_name, name="conv"
        )
        x = nn.relu(conv(x, train=train))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        logits = layers.head(x, self.num_classes)
        return ops.resize_bilinear(logits, image.shape[1:3])
