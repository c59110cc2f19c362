"""A classifier of whole images, to check an encoder's weights."""

import flax.linen as nn
import jax.numpy as jnp

from segjax.models import layers
from segjax.models.encoders.efficientnet_lite import EfficientNetLite, Head, batch_norm
from segjax.typing import Array, Image


class Classifier(nn.Module):
    """The published classifier on an EfficientNet-Lite: 1x1 convolution, mean, dense.

    Attributes:
        encoder: The encoder, whose variables are under `encoder`.
        num_classes: Number of logits.
        width: Channels of the convolution.
        norm: One of the norms in `layers`.
    """

    encoder: EfficientNetLite
    num_classes: int = 1000
    width: int = 1280
    norm: layers.Norm = batch_norm

    @nn.compact
    def __call__(self, image: Image, *, train: bool = False) -> Array:
        """[B, H, W, K] -> [B, num_classes] logits."""
        x = self.encoder(image, train=train)[-1]
        x = Head(self.width, norm=self.norm, name="head")(x, train=train)
        return nn.Dense(self.num_classes, name="classifier")(jnp.mean(x, axis=(1, 2)))
