"""Making images fit: zeros below and to the right, never a resize."""

from collections.abc import Sequence

import numpy as np

from segjax.ops import round_up


def padded_size(size: Sequence[int], multiple: int) -> tuple[int, int]:
    """The smallest size that divides by `multiple` and holds an image.

    Args:
        size: (height, width), each at least 1.
        multiple: At least 1.

    Returns:
        (height, width), each rounded up.
    """
    height, width = size
    return round_up(height, multiple), round_up(width, multiple)


def pad_to_size(x: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Adds zeros at the bottom and the right.

    Zero is False in a `valid` map: what was added does not count.

    Args:
        x: [H, W, ...] on the host.
        size: (height, width). An axis that is longer already stays as it is.

    Returns:
        [max(H, height), max(W, width), ...]; `x` itself when nothing is missing.
    """
    missing = [max(0, want - have) for want, have in zip(size, x.shape, strict=False)]
    if not any(missing):
        return x
    return np.pad(x, [(0, n) for n in missing] + [(0, 0)] * (x.ndim - 2))


def pad_to_multiple(x: np.ndarray, multiple: int) -> np.ndarray:
    """Adds zeros at the bottom and the right up to a size that divides.

    Args:
        x: [H, W, ...] on the host.
        multiple: Pixels; at least 1.

    Returns:
        [H', W', ...] with H' and W' divisible by `multiple`.
    """
    return pad_to_size(x, padded_size(x.shape[:2], multiple))
