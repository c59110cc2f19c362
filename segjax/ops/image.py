"""Pixels: from those stored to those computed with, and larger ones."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from segjax.typing import Array


def to_float(image: Array) -> Array:
    """Maps stored pixels to float32, integers to [0, 1] by the range of their dtype.

    Args:
        image: [..., H, W, C]: uint8 is divided by 255, uint16 by 65535, floats keep
            their values.

    Returns:
        [..., H, W, C] float32; float64 and bfloat16 keep their dtype.

    Raises:
        ValueError: For any other dtype, whose range says nothing of the pixels.
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.asarray(image)
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"An image needs dtype uint8, uint16 or float32, got {image.dtype}. "
            f"Convert it, or give a preprocess of your own."
        )
    return jnp.asarray(image, jnp.float32) / jnp.iinfo(image.dtype).max


@dataclasses.dataclass(frozen=True)
class UnitRange:
    """Integers to [0, 1] by the range of their dtype; floats keep their values."""

    def __call__(self, image: Array) -> Array:
        """[..., H, W, C] as stored to float32; see `to_float`."""
        return to_float(image)


unit_range = UnitRange()
"""The preprocessing of an experiment that names none."""


@dataclasses.dataclass(frozen=True)
class Normalize:
    """`(to_float(image) - mean) / std`, by channel.

    Attributes:
        mean: One number per channel, or one for all of them. In units of [0, 1] for
            uint8 and uint16 images, as torchvision has it; of the pixels themselves
            for float images.
        std: Likewise; above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"normalize needs as many means as deviations, one a channel, got "
                f"{len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise ValueError(f"normalize needs std above 0, got {self.std}.")

    def __call__(self, image: Array) -> Array:
        """[..., H, W, C] as stored to float32."""
        channels = image.shape[-1]
        if len(self.mean) not in (1, channels):
            raise ValueError(
                f"normalize needs a mean for each of {channels} channels, got "
                f"{len(self.mean)}."
            )
        ones = (1,) * (image.ndim - 1)
        mean, std = (
            jnp.asarray(v, jnp.float32).reshape(*ones, -1)
            for v in (self.mean, self.std)
        )
        return (to_float(image) - mean) / std


@dataclasses.dataclass(frozen=True)
class ClipWindow:
    """Stored values from `low` to `high` become 0 to 1; those outside are cut.

    Attributes:
        low: What becomes 0, in units of the stored pixels, whatever their dtype.
        high: What becomes 1.
    """

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(
                f"clip_window needs low below high, got {self.low} and {self.high}."
            )

    def __call__(self, image: Array) -> Array:
        """[..., H, W, C] as stored to float32 in [0, 1]."""
        x = jnp.asarray(image, jnp.float32)
        return (jnp.clip(x, self.low, self.high) - self.low) / (self.high - self.low)


def normalize(
    mean: Sequence[float | int] | float | int,
    std: Sequence[float | int] | float | int,
) -> Normalize:
    """A preprocessing to zero mean and unit variance: see `Normalize`.

    Args:
        mean: One number per channel, or one for all; in units of [0, 1] for uint8 and
            uint16 images, of the pixels themselves for float images.
        std: Likewise.
    """
    return Normalize(_numbers(mean), _numbers(std))


def clip_window(low: float | int, high: float | int) -> ClipWindow:
    """A preprocessing that maps stored values from low to high to [0, 1], and cuts.

    Args:
        low: What becomes 0, in units of the stored pixels: 200 for uint16 is 200.
        high: What becomes 1.
    """
    return ClipWindow(float(low), float(high))


def _numbers(values: Sequence[float | int] | float | int) -> tuple[float, ...]:
    return tuple(float(v) for v in np.atleast_1d(np.asarray(values)))


def upsample_nearest(x: Array, factor: int, *, axis: int = 1) -> Array:
    """Enlarges by nearest neighbors: every row and column so many times.

    Args:
        x: [..., H, W, ...].
        factor: How many times.
        axis: That of the rows; columns are the next.

    Returns:
        [..., H * times, W * times, ...].
    """
    return jnp.repeat(jnp.repeat(x, factor, axis=axis), factor, axis=axis + 1)
