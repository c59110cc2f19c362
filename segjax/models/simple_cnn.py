"""The smallest network that segments: two convolutions, to teach and to test with."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from segjax.models import layers
from segjax.typing import Image, Logits


class SimpleCNN(nn.Module):
    """3x3 convolution, relu, 3x3 convolution; a pixel sees the 5x5 around it.

    With 16 features and 2 classes it has (27 * 16 + 16) + (144 * 2 + 2) = 738
    parameters.

    Attributes:
        num_classes: C, the channels of the logits.
        width: Channels between the convolutions.
        dtype: What the first convolution computes in; parameters, the last
            convolution and logits are float32.
    """

    num_classes: int
    width: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Logits:
        """[B, H, W, K] of any K, H and W -> [B, H, W, C] float32 logits."""
        del train  # Neither dropout nor batch statistics.
        layers.check_image(image)
        x = image.astype(self.dtype)
        conv = nn.Conv(
            self.width,
            (3, 3),
            dtype=self.dtype,
            kernel_init=layers.he_normal,
            name="conv",
        )
        return layers.head(nn.relu(conv(x)), self.num_classes, kernel_size=3)
