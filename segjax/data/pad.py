"""Making images fit: more below and to the right, never a resize."""

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


def pad_to_size(x: np.ndarray, size: Sequence[int], *, value: int = 0) -> np.ndarray:
    """Adds zeros, or another value, at the bottom and the right.

    Zero is False in a `valid` map: what was added does not count.

    Args:
        x: [H, W, ...] on the host.
        size: (height, width). An axis that is longer already stays as it is.
        value: What to add; the ignored id in a label map, so that it does not count.

    Returns:
        [max(H, height), max(W, width), ...]; `x` itself when nothing is missing.
    """
    missing = [max(0, want - have) for want, have in zip(size, x.shape, strict=False)]
    if not any(missing):
        return x
    pads = [(0, n) for n in missing] + [(0, 0)] * (x.ndim - 2)
    return np.pad(x, pads, constant_values=value)


def mirror_to_size(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Extends an image at the bottom and the right by its mirror image.

    Black borders are seen by a network whose training crops have none: on nuclei the
    Dice score of whole images is 0.001 higher with mirrored ones. `inference` pads so
    too, so that what is predicted is what was scored.

    Args:
        image: [H, W, ...] on the host, with at least one pixel.
        size: (height, width), at least (H, W).

    Returns:
        [height, width, ...]; `image` itself when nothing is missing.
    """
    for axis, want in enumerate(size):
        missing = want - image.shape[axis]
        if missing:
            pads = [(0, missing if i == axis else 0) for i in range(image.ndim)]
            # `reflect` needs two pixels to mirror; one is repeated.
            image = np.pad(image, pads, "reflect" if image.shape[axis] > 1 else "edge")
    return image


def pad_to_multiple(x: np.ndarray, multiple: int) -> np.ndarray:
    """Adds zeros at the bottom and the right up to a size that divides.

    Args:
        x: [H, W, ...] on the host.
        multiple: Pixels; at least 1.

    Returns:
        [H', W', ...] with H' and W' divisible by `multiple`.
    """
    return pad_to_size(x, padded_size(x.shape[:2], multiple))
