"""A convolution and a norm that leave padding out."""

from typing import Any

import flax.linen as nn

from segjax.models import layers, region
from segjax.typing import Array

_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(nn.Module):
    """A convolution with PyTorch's padding, then a norm.

    Attributes:
        features: Channels of the result.
        kernel_size: Odd; dilation * (kernel_size // 2) zeros are padded at every
            border.
        strides: Pixels between outputs.
        norm: One of the norms in `layers`; the convolution has a bias with `no_norm`.
        axis_name: Passed to the norm.
        kernel_init: Initializer of the kernel.
        dilation: Pixels between entries of the kernel.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    norm: layers.Norm = layers.frozen_norm
    axis_name: str | None = None
    kernel_init: Any = _fan_out
    dilation: int = 1

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool, pixel_mask: Array | None = None
    ) -> Array:
        """[B, H, W, *] -> [B, H / strides, W / strides, features].

        Args:
            x: Features.
            train: Passed to the norm.
            pixel_mask: bool [B, H, W, 1], False in padding; None for no padding.
        """
        if self.kernel_size > 1:
            x = region.zero_outside(x, pixel_mask)
        x = layers.Conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=self.dilation * (self.kernel_size // 2),
            dilation=self.dilation,
            use_bias=self.norm is layers.no_norm,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        mask = region.stride(pixel_mask, self.strides)
        return self.norm(x, train=train, axis_name=self.axis_name, mask=mask)
