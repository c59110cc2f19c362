"""Crops that align label maps with the logits of models that trim their border."""

from collections.abc import Sequence

from segjax.errors import UserError
from segjax.typing import Array


def center_crop(x: Array, size: Sequence[int]) -> Array:
    """Crops the center of the two axes after the batch axis.

    Args:
        x: [B, H, W, ...].
        size: (height, width) to keep, at most (H, W). If the difference is odd, the
            extra row or column is removed at the bottom or right.

    Returns:
        [B, height, width, ...]; `x` itself if it already has that size.

    Raises:
        ValueError: If `size` exceeds the array.
    """
    height, width = size
    rest = x.shape[1] - height, x.shape[2] - width
    if rest == (0, 0):
        return x
    if min(rest) < 0:
        raise UserError(
            f"center_crop needs at least {height}x{width} pixels, "
            f"got {x.shape[1]}x{x.shape[2]}. Use a larger input or a smaller size."
        )
    top, left = rest[0] // 2, rest[1] // 2
    return x[:, top : top + height, left : left + width]
