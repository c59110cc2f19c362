"""Padding at the bottom and the right."""

from collections.abc import Sequence

import numpy as np

from segjax.ops import round_up


def padded_size(size: Sequence[int], multiple: int) -> tuple[int, int]:
    """Rounds a size up to multiples of `multiple`.

    Args:
        size: (height, width), each at least 1.
        multiple: At least 1.

    Returns:
        (height, width), each rounded up.
    """
    height, width = size
    return round_up(height, multiple), round_up(width, multiple)


def pad_to_size(x: np.ndarray, size: Sequence[int], *, value: int = 0) -> np.ndarray:
    """Pads with a constant at the bottom and the right.

    Zero is False in a `valid` map, so padding is not evaluated.

    Args:
        x: [H, W, ...] on the host.
        size: (height, width). An axis that is already longer is unchanged.
        value: The constant; pass the ignore index for label maps.

    Returns:
        [max(H, height), max(W, width), ...]; `x` itself if there is nothing to pad.
    """
    missing = [max(0, want - have) for want, have in zip(size, x.shape, strict=False)]
    if not any(missing):
        return x
    pads = [(0, n) for n in missing] + [(0, 0)] * (x.ndim - 2)
    return np.pad(x, pads, constant_values=value)


def reflect_to_size(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Pads an image at the bottom and the right by reflection.

    Training crops have no black borders, so zeros would be out of distribution
    (docs/speed.md, "Choices that were measured"). `inference` pads the same way.

    Args:
        image: [H, W, ...] on the host, with at least one pixel.
        size: (height, width), at least (H, W).

    Returns:
        [height, width, ...]; `image` itself if there is nothing to pad.
    """
    for axis, want in enumerate(size):
        missing = want - image.shape[axis]
        if missing:
            pads = [(0, missing if i == axis else 0) for i in range(image.ndim)]
            # `reflect` needs at least two pixels; a single one is repeated.
            image = np.pad(image, pads, "reflect" if image.shape[axis] > 1 else "edge")
    return image


def pad_to_multiple(x: np.ndarray, multiple: int) -> np.ndarray:
    """Pads with zeros at the bottom and the right to multiples of `multiple`.

    Args:
        x: [H, W, ...] on the host.
        multiple: Pixels; at least 1.

    Returns:
        [H', W', ...] with H' and W' divisible by `multiple`.
    """
    return pad_to_size(x, padded_size(x.shape[:2], multiple))
