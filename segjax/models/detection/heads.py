"""Box head and mask head of Mask R-CNN.

He et al., 2017, arXiv:1703.06870, section 3 and figure 4 (right), as in torchvision.
"""

import flax.linen as nn
import jax.numpy as jnp

from segjax.models import layers
from segjax.models.conv_norm import ConvNorm
from segjax.typing import Array

# PyTorch's default for linear layers: uniform up to 1 / sqrt(fan_in).
_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class BoxHead(nn.Module):
    """Predicts class scores, and one box for each class.

    Attributes:
        num_classes: C, with background as class 0.
        convs: 3x3 convolutions before the dense layers.
        denses: Dense layers.
        width: Channels of the dense layers.
        norm: Norm after each convolution, one of those in `layers`.
        axis_name: Passed to the norm.
    """

    num_classes: int
    convs: int = 0
    denses: int = 2
    width: int = 1024
    norm: layers.Norm = layers.no_norm
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Array, region_mask: Array, *, train: bool
    ) -> tuple[Array, Array]:
        """Predicts from the features of regions.

        Args:
            x: [N, P, P, *] features of regions.
            region_mask: bool [N], False for empty slots, which batch norm ignores.
            train: Passed to the norm.

        Returns:
            Logits [N, C] and deltas [N, C, 4], float32.
        """
        dtype, classes = x.dtype, self.num_classes
        pixel_mask = region_mask[:, None, None, None]
        for i in range(self.convs):
            conv = ConvNorm(
                x.shape[-1],
                norm=self.norm,
                axis_name=self.axis_name,
                name=f"conv{i}",
            )
            x = nn.relu(conv(x, train=train, pixel_mask=pixel_mask))
        axes: tuple[int, ...] = (-3, -2, -1)
        for i in range(self.denses):
            dense = nn.DenseGeneral(
                self.width,
                axis=axes,
                dtype=dtype,
                kernel_init=_linear,
                name=f"dense{i}",
            )
            x, axes = nn.relu(dense(x)), (-1,)
        x = x.astype(jnp.float32)  # The predictions are float32.
        logits = nn.Dense(classes, kernel_init=_linear, name="score")(x)
        deltas = nn.Dense(4 * classes, kernel_init=_linear, name="delta")(x)
        return logits, deltas.reshape(-1, classes, 4)


class MaskHead(nn.Module):
    """Predicts the mask of one given class for each region.

    Attributes:
        num_classes: C, with background as class 0.
        convs: 3x3 convolutions.
        width: Their channels.
        norm: Norm after each convolution, one of those in `layers`.
        axis_name: Passed to the norm.
    """

    num_classes: int
    convs: int = 4
    width: int = 256
    norm: layers.Norm = layers.no_norm
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Array, classes: Array, region_mask: Array, *, train: bool
    ) -> Array:
        """Predicts from the features of regions.

        Args:
            x: [N, P, P, *] features of regions.
            classes: int32 [N], the class of each region whose mask is computed.
            region_mask: bool [N], False for empty slots.
            train: Passed to the norm.

        Returns:
            float32 logits [N, 2 * P, 2 * P].
        """
        pixel_mask = region_mask[:, None, None, None]
        for i in range(self.convs):
            conv = ConvNorm(
                self.width, norm=self.norm, axis_name=self.axis_name, name=f"conv{i}"
            )
            x = nn.relu(conv(x, train=train, pixel_mask=pixel_mask))
        x = nn.relu(layers.TransposedConv(self.width, name="deconv")(x))
        return _Logits(self.num_classes, name="logits")(x, classes)


class _Logits(nn.Module):
    """A 1x1 convolution that computes one class for each region."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, classes: Array) -> Array:
        """[N, M, M, *] and [N] -> float32 [N, M, M]."""
        shape = (x.shape[-1], self.num_classes)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        return bias[classes][:, None, None] + jnp.einsum(
            "nhwf,nf->nhw",
            x,
            kernel.T[classes].astype(x.dtype),
            preferred_element_type=jnp.float32,
        )
