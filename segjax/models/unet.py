"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597).

Differs from the paper: SAME padding, so that logits align with the input, and group
norm. `UNet(num_classes, norm=layers.no_norm, padding="valid")` is the paper's network;
`UNet(num_classes, encoder=encoders.resnet34())` has another encoder.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from segjax import ops
from segjax.errors import UserError
from segjax.models import layers
from segjax.models.encoders.conv import conv_maps
from segjax.models.encoders.encoder import Encoder
from segjax.typing import Array, Image


class UNet(nn.Module):
    """Encoder and decoder with a skip connection at every scale.

    Attributes:
        num_classes: C, the channels of the logits.
        widths: Channels per scale, finest first; by default 64, 128, 256, 512, 1024.
            With an `encoder`, those of the decoder, one for each time that the encoder
            halves the image; by default 16, 32, 64, 128, 256.
        norm: `layers.group_norm`, `layers.batch_norm` or `layers.no_norm`; the encoder
            has its own.
        upsample: `layers.transposed` or `layers.bilinear`.
        padding: "same": logits have the input's size. "valid": convolutions are not
            padded, and with D = len(widths) - 1 the logits lack the outer 6 * 2**D - 4
            pixels of the input on each side (92 for five scales: 572 -> 388). In both,
            sizes that cannot be halved D times are padded at the bottom and right by
            reflection, and the logits are cropped. Only "same" with an `encoder`.
        block: Module of a scale; `models.remat(layers.ConvBlock)` takes less memory and
            more time.
        dropout: Dropout rate of the coarsest features.
        axis_name: Mapped axis over which batch norm averages, in pmap.
        dtype: Dtype of the computation; parameters, the last convolution and logits are
            float32.
        encoder: One of `models.encoders`, whose variables are under `encoder`; each of
            its strides is twice the one before. None: blocks of `widths`.
    """

    num_classes: int
    widths: Sequence[int] | None = None
    norm: layers.Norm = layers.group_norm
    upsample: layers.Upsample = layers.transposed
    padding: str = "same"
    block: type[layers.ConvBlock] = layers.ConvBlock
    dropout: float = 0.0
    axis_name: str | None = None
    dtype: Any = jnp.float32
    encoder: Encoder | None = None

    @property
    def margin(self) -> int:
        """Pixels that the logits lack on each side of the image."""
        return 6 * 2 ** (len(self._widths) - 1) - 4 if self.padding == "valid" else 0

    @property
    def _widths(self) -> tuple[int, ...]:
        if self.widths is not None:
            return tuple(self.widths)
        if self.encoder is None:
            return 64, 128, 256, 512, 1024
        return tuple(16 * 2**i for i in range(_halvings(self.encoder)))

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Float[Array, "b y x c"]:
        """[B, H, W, K] of any K -> [B, H, W, C] float32 logits; see `padding`."""
        layers.check_image(image)
        trim, size = self._geometry(image.shape[1], image.shape[2])
        x = ops.reflect_pad(image, size).astype(self.dtype)
        if self.encoder is None:
            widths = self._widths[:-1]
            *skips, x = conv_maps(x, self._widths, self._block, train=train)
        else:
            widths = self._widths
            *skips, x = self.encoder(x, train=train)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        # The encoder's finest map may be coarser than the image: no skip above it.
        skips = [None] * (len(widths) - len(skips)) + skips
        for i, width in reversed(list(enumerate(widths))):
            x = self.upsample(x, width, name=f"upsample{i}")
            skip = skips[i]
            if skip is not None:
                skip = ops.center_crop(skip, x.shape[1:3])
                x = jnp.concatenate([skip, x], axis=-1)
            x = self._block(width, f"up{i}")(x, train=train)
        logits = layers.head(x, self.num_classes)
        return logits[:, : image.shape[1] - trim, : image.shape[2] - trim]

    def _block(self, width: int, name: str) -> layers.ConvBlock:
        return self.block(
            width,
            norm=self.norm,
            padding=self.padding.upper(),
            axis_name=self.axis_name,
            name=name,
        )

    def _geometry(self, height: int, width: int) -> tuple[int, tuple[int, int]]:
        """Pixels trimmed from height and width, and the padded size of the input."""
        scales = len(self._widths)
        multiple = 2 ** (scales - 1)
        if self.encoder is not None:
            self._check(self.encoder)
            multiple = self.encoder.strides[-1]
        if self.padding == "same":
            trim, extra = 0, 0
        elif self.padding == "valid" and self.encoder is None:
            # A block trims 4, so a size n halves D times if 2**D divides n + 4.
            trim, extra = 12 * multiple - 8, 4
        else:
            needed = '"same" or "valid"' if self.encoder is None else '"same"'
            raise UserError(f"UNet needs padding {needed}, got {self.padding!r}.")
        if height <= trim or width <= trim:
            raise UserError(
                f"UNet with {scales} scales and {self.padding} padding "
                f"needs at least {trim + 1}x{trim + 1} pixels, got {height}x{width}. "
                f'Use larger images, fewer widths, or padding="same".'
            )
        size = [ops.round_up(n + extra, multiple) - extra for n in (height, width)]
        return trim, (size[0], size[1])

    def _check(self, encoder: Encoder) -> None:
        strides, halvings = encoder.strides, _halvings(encoder)
        if strides != tuple(2 ** (halvings - i) for i in range(len(strides)))[::-1]:
            raise UserError(
                f"UNet needs an encoder whose strides double, got {strides}. Use "
                f"output_stride=32."
            )
        if len(self._widths) != halvings:
            raise UserError(
                f"UNet with an encoder of stride {strides[-1]} needs {halvings} widths "
                f"for its decoder, got {len(self._widths)}."
            )


def _halvings(encoder: Encoder) -> int:
    return encoder.strides[-1].bit_length() - 1
