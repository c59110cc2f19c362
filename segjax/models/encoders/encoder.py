"""The interface of encoders."""

from typing import Protocol, runtime_checkable

from segjax.errors import UserError
from segjax.typing import Array


@runtime_checkable
class Encoder(Protocol):
    """Computes feature maps of an image, from fine to coarse: a linen module.

    Any number of input channels is accepted. Decoders read `strides` before they run
    the encoder.
    """

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per cell of each map, ascending."""
        ...

    def __call__(
        self, x: Array, *, train: bool = False, pixel_mask: Array | None = None
    ) -> list[Array]:
        """Computes one map [B, H / s, W / s, *], rounded up, for each stride s.

        Args:
            x: [B, H, W, K].
            train: Passed to the norms.
            pixel_mask: bool [B, H, W, 1], False in padding; None for no padding.
        """
        ...


def map_at(encoder: Encoder, maps: list[Array], stride: int, *, user: str) -> Array:
    """Returns the coarsest-stage map of a stride, the last one of its size.

    Args:
        encoder: The encoder of the maps.
        maps: Its result.
        stride: The stride of the map.
        user: The model, for the message.

    Raises:
        ValueError: If there is no map of this stride.
    """
    found = [x for x, s in zip(maps, encoder.strides, strict=True) if s == stride]
    if not found:
        raise UserError(
            f"{user} needs an encoder with a map of stride {stride}, got strides "
            f"{encoder.strides}. Choose another encoder, or another output stride."
        )
    return found[-1]
