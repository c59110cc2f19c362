"""Conversion of images of any channels and dtype to RGB, for display only."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from segjax.errors import UserError
from segjax.typing import Array

Rgb = UInt8[np.ndarray, "h w 3"]
Picture = UInt8[Array, "h w k"] | UInt16[Array, "h w k"] | Float[Array, "h w k"]
"""An image as stored: any number of channels."""


def to_rgb(
    image: Picture,
    *,
    channels: Sequence[int] | None = None,
    window: tuple[int | float, int | float] = (1, 99),
) -> Rgb:
    """Converts an image of any channels and dtype to RGB; for display only.

    One channel is shown as gray, two as red and green, three as red, green and blue; of
    more, the first three are shown, unless `channels` is given. uint8 values are
    unchanged. uint16 and float values are rescaled per picture and channel, so that
    brightness and color cannot be compared between pictures.

    Args:
        image: [H, W, K] uint8, uint16 or float.
        channels: Up to three channels in [0, K), to be shown as red, green and blue; a
            single one is shown as gray.
        window: Percentiles of a channel's finite pixels that become 0 and 255; values
            beyond are clipped. If the two are equal, the minimum and maximum are used
            instead. A constant channel has medium brightness, and pixels that are not
            finite are black.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: If `channels` is empty, has more than three entries, or one is not
            in the image.
    """
    image = np.asarray(image)
    if channels is None:
        channels = range(min(3, image.shape[-1]))
    if not 1 <= len(channels) <= 3 or not all(
        0 <= channel < image.shape[-1] for channel in channels
    ):
        raise UserError(
            f"to_rgb needs one to three channels from 0 to {image.shape[-1] - 1}, got "
            f"{list(channels)}."
        )
    planes = [_to_uint8(image[..., channel], window) for channel in channels]
    if len(planes) == 1:
        planes *= 3
    if len(planes) == 2:
        planes.append(np.zeros_like(planes[0]))
    return np.stack(planes, axis=-1)


def _to_uint8(plane: np.ndarray, window: tuple[int | float, int | float]) -> np.ndarray:
    if plane.dtype == np.uint8:
        return plane
    plane = plane.astype(np.float64)
    known = np.isfinite(plane)
    if not known.any():
        return np.zeros(plane.shape, np.uint8)
    low, high = np.percentile(plane[known], window)
    if low == high:
        low, high = plane[known].min(), plane[known].max()
    if low == high:
        return np.where(known, 127, 0).astype(np.uint8)
    shown = np.clip((np.where(known, plane, low) - low) / (high - low), 0, 1)
    return np.round(255 * shown).astype(np.uint8)
