"""Conversion and normalization of stored pixels, and integer upsampling."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from segjax.errors import UserError
from segjax.typing import Array


def to_float(image: Array) -> Array:
    """Converts stored pixels to float32, scaling integers to [0, 1].

    Args:
        image: [..., H, W, C]: uint8 is divided by 255, uint16 by 65535, floats are
            unchanged.

    Returns:
        [..., H, W, C] float32; float64 and bfloat16 keep their dtype.

    Raises:
        ValueError: For any other dtype, whose range is not that of the pixels.
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.asarray(image)
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"An image needs dtype uint8, uint16 or float32, got {image.dtype}. "
            f"Convert it, or pass your own preprocess."
        )
    return jnp.asarray(image, jnp.float32) / jnp.iinfo(image.dtype).max


@dataclasses.dataclass(frozen=True)
class UnitRange:
    """Scales integers to [0, 1] by the range of their dtype; floats are unchanged."""

    def __call__(self, image: Array) -> Array:
        """[..., H, W, C] as stored to float32; see `to_float`."""
        return to_float(image)


unit_range = UnitRange()
"""The default preprocessing of an experiment."""


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Computes `(to_float(image) - mean) / std`, by channel.

    Attributes:
        mean: One number per channel, or one for all of them. In units of [0, 1] for
            uint8 and uint16 images, as in torchvision; in units of the pixels for float
            images.
        std: Likewise; above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if not self.mean or len(self.mean) != len(self.std):
            raise UserError(
                f"normalize needs equally many means and standard deviations, one per "
                f"channel, got {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise UserError(f"normalize needs std above 0, got {self.std}.")

    def __call__(self, image: Array) -> Array:
        """[..., H, W, C] as stored to float32."""
        channels = image.shape[-1]
        if len(self.mean) not in (1, channels):
            raise UserError(
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
    """Maps stored values from `low` to `high` to [0, 1], clipping values outside.

    Attributes:
        low: Value that maps to 0, in units of the stored pixels of any dtype.
        high: Value that maps to 1.
    """

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise UserError(
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
    """Builds a preprocessing to zero mean and unit variance; see `Normalize`.

    Args:
        mean: One number per channel, or one for all; in units of [0, 1] for uint8 and
            uint16 images, in units of the pixels for float images.
        std: Likewise.
    """
    return Normalize(_numbers(mean), _numbers(std))


def clip_window(low: float | int, high: float | int) -> ClipWindow:
    """Builds a preprocessing that maps [low, high] to [0, 1]; see `ClipWindow`.

    Args:
        low: Value that maps to 0, in units of the stored pixels: 200 for uint16 is 200.
        high: Value that maps to 1.
    """
    return ClipWindow(float(low), float(high))


def _numbers(values: Sequence[float | int] | float | int) -> tuple[float, ...]:
    return tuple(float(v) for v in np.atleast_1d(np.asarray(values)))


def upsample_nearest(x: Array, factor: int, *, axis: int = 1) -> Array:
    """Upsamples by an integer factor, repeating every row and column.

    Args:
        x: [..., H, W, ...].
        factor: Number of repetitions.
        axis: The axis of the rows; columns are the next axis.

    Returns:
        [..., H * times, W * times, ...].
    """
    return jnp.repeat(jnp.repeat(x, factor, axis=axis), factor, axis=axis + 1)
