"""Atrous spatial pyramid pooling (Chen et al., 2017, arXiv:1706.05587, section 3.3)."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from segjax.models import layers
from segjax.models.conv_norm import ConvNorm
from segjax.typing import Array


class ASPP(nn.Module):
    """Convolutions of several dilations and the mean of the map, concatenated.

    Attributes:
        features: Channels of every branch and of the result.
        rates: Dilations of the 3x3 convolutions, in pixels of the map.
        norm: One of the norms in `layers`.
        dropout: Dropout rate of the result.
        axis_name: Passed to the norm.
    """

    features: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    norm: layers.Norm = layers.batch_norm
    dropout: float = 0.5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, H, W, *] -> [B, H, W, features].

        In training with batch norm, a batch needs more than one image: the mean of the
        map is one value per image and channel.
        """
        conv = functools.partial(
            ConvNorm, self.features, norm=self.norm, axis_name=self.axis_name
        )
        point = conv(kernel_size=1, name="branch0")
        branches = [nn.relu(point(x, train=train))]
        for i, rate in enumerate(self.rates):
            branch = conv(dilation=rate, name=f"branch{i + 1}")
            branches.append(nn.relu(branch(x, train=train)))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        mean = nn.relu(conv(kernel_size=1, name="pool")(mean, train=train))
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        x = jnp.concatenate(branches, axis=-1)
        x = nn.relu(conv(kernel_size=1, name="project")(x, train=train))
        return nn.Dropout(self.dropout)(x, deterministic=not train)
