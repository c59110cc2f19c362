"""A network of two convolutions, for teaching and testing."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from segjax.models import layers
from segjax.typing import Image, Logits


class SimpleCNN(nn.Module):
    """3x3 convolution, relu, 3x3 convolution, with a receptive field of 5x5.

    With 16 features and 2 classes it has (27 * 16 + 16) + (144 * 2 + 2) = 738
    parameters.

    Attributes:
        num_classes: C, the channels of the logits.
        width: Channels between the convolutions.
        dtype: Dtype of the first convolution; parameters, the last convolution and
            logits are float32.
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
        conv = layers.Conv(self.width, name="conv")
        return layers.head(nn.relu(conv(x)), self.num_classes, kernel_size=3)
