"""Feature pyramid networks (Lin et al., 2017, arXiv:1612.03144)."""

from collections.abc import Sequence

import flax.linen as nn

from segjax import ops
from segjax.models import layers
from segjax.models.conv_norm import ConvNorm
from segjax.typing import Array

_uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class FPN(nn.Module):
    """Feature maps of equal depth at every scale, with a top-down pathway.

    Attributes:
        features: Channels of every level.
        norm: One of the norms in `layers`; the paper uses none.
        axis_name: Passed to the norm.
    """

    features: int = 256
    norm: layers.Norm = layers.no_norm
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        maps: Sequence[Array],
        *,
        train: bool = False,
        pixel_masks: Sequence[Array | None] | None = None,
    ) -> list[Array]:
        """Computes the pyramid.

        Args:
            maps: [B, H, W, *], finest first, each half the size of the previous one.
            train: Passed to the norm.
            pixel_masks: bool [B, H, W, 1] for each map, False in padding.

        Returns:
            As many maps [B, H, W, features], and one more: every second row and column
            of the coarsest map, used only by the region proposal network.
        """
        pixel_masks = pixel_masks or [None] * len(maps)
        pyramid, above = [], None
        for i in reversed(range(len(maps))):
            inner = self._conv(1, f"inner{i}")(
                maps[i], train=train, pixel_mask=pixel_masks[i]
            )
            if above is not None:
                inner = inner + _double(above, inner.shape)
            above = inner
            outer = self._conv(3, f"layer{i}")(
                inner, train=train, pixel_mask=pixel_masks[i]
            )
            pyramid.insert(0, outer)
        return [*pyramid, pyramid[-1][:, ::2, ::2]]

    def _conv(self, kernel_size: int, name: str) -> ConvNorm:
        return ConvNorm(
            self.features,
            kernel_size,
            norm=self.norm,
            axis_name=self.axis_name,
            kernel_init=_uniform,
            name=name,
        )


def _double(x: Array, shape: Sequence[int]) -> Array:
    """Upsamples by 2, cropped to a shape that may be odd."""
    return ops.upsample_nearest(x, 2)[:, : shape[1], : shape[2]]
