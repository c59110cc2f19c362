"""Anchor boxes of a region proposal network."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from segjax.errors import UserError
from segjax.ops import checks


def cell_anchors(
    sizes: Sequence[float | int], aspect_ratios: Sequence[float | int]
) -> Float[np.ndarray, "a 4"]:
    """Computes the anchors of one cell, centered at (0, 0).

    Args:
        sizes: Square roots of the areas, in pixels.
        aspect_ratios: Height over width.

    Returns:
        [A, 4] float32 (x0, y0, x1, y1) in whole pixels: all sizes of the first aspect
        ratio, then of the next.

    Raises:
        ValueError: If a size or an aspect ratio is not a finite number above 0.

    Reference:
        Equals torchvision's `AnchorGenerator` exactly.
    """
    for name, numbers in (("size", sizes), ("aspect ratio", aspect_ratios)):
        for number in numbers:
            checks.number("cell_anchors", name, number, least=0, above=True)
    high = np.sqrt(np.asarray(aspect_ratios, np.float32))[:, None]
    size = np.asarray(sizes, np.float32)[None, :]
    width, height = ((1 / high) * size).ravel(), (high * size).ravel()
    return np.round(np.stack([-width, -height, width, height], axis=1) / 2)


def pyramid_anchors(
    image_size: tuple[int, int],
    level_sizes: Sequence[tuple[int, int]],
    *,
    sizes: Sequence[Sequence[float | int]],
    aspect_ratios: Sequence[float | int],
) -> list[Float[np.ndarray, "_ 4"]]:
    """Computes the anchors of all levels, centered at the cells' top left corners.

    Args:
        image_size: (height, width) of the padded image, in pixels.
        level_sizes: (height, width) of each level's feature map.
        sizes: Square roots of the anchors' areas of each level, in pixels.
        aspect_ratios: Height over width, the same on every level.

    Returns:
        For each level [height * width * A, 4] float32 in pixels, in row-major order
        with the A anchors of a cell together, as in the channels of the network's head.
        The stride of the cells is the image size over the level size, rounded down.

    Raises:
        ValueError: If sizes and level_sizes differ in length, or a level has no cells
            or more cells than the image has pixels along a side.

    Reference:
        Lin et al., Feature Pyramid Networks, CVPR 2017, arXiv:1612.03144, section
        4.1, as in torchvision's `AnchorGenerator`.
    """
    if len(sizes) != len(level_sizes):
        raise UserError(
            f"anchors need one group of sizes per level, got {len(sizes)} groups for "
            f"{len(level_sizes)} levels. Give sizes=((32,), (64,), ...)."
        )
    for level in level_sizes:
        checks.size("pyramid_anchors", level)
        if level[0] > image_size[0] or level[1] > image_size[1]:
            raise UserError(
                f"pyramid_anchors needs levels no larger than the image, got "
                f"{tuple(level)} for {tuple(image_size)}. Check their order: (height, "
                f"width)."
            )
    return [
        _grid(cell_anchors(group, aspect_ratios), image_size, level)
        for group, level in zip(sizes, level_sizes, strict=True)
    ]


def _grid(cell: np.ndarray, image: tuple[int, int], level: tuple[int, int]):
    """Shifts the anchors of a cell to every cell: [h * w * A, 4]."""
    rows, columns = (
        np.arange(n, dtype=np.float32) * (full // n)
        for full, n in zip(image, level, strict=True)
    )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    corner = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (corner + cell[None]).reshape(-1, 4)
