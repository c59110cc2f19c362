"""Anchors of a batch of images that are padded to the same shape."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

from segjax import ops
from segjax.errors import UserError
from segjax.typing import Array


@flax.struct.dataclass
class Anchors:
    """Anchors of a batch, ordered by level and row; A in total.

    Attributes:
        boxes: float32 [B, A, 4] in pixels.
        valid: bool [B, A], False for anchors of cells that are padding.
        ids: uint32 [A], unique ids that do not depend on padding.
        num_anchors: Number of anchors of each level; their sum is A.
    """

    # Any, not Array: JAX transformations also build it of shapes and None.
    boxes: Any
    valid: Any
    ids: Any
    num_anchors: tuple[int, ...] = flax.struct.field(pytree_node=False)


def grid_anchors(
    shapes: Sequence[Sequence[int]],
    extent: Array,
    sizes: Sequence[Sequence[int | float]],
    aspect_ratios: Sequence[float],
) -> Anchors:
    """Computes the anchors of all cells of all levels.

    As in torchvision, the stride of the cells is an image's extent over its number of
    cells, rounded down. On the level of stride 64 this is less than 64 if the extent is
    an odd multiple of 32. `ops.pyramid_anchors` is the same for images of equal size.

    Args:
        shapes: (rows, columns) of the maps at strides 4, 8, 16 and so on.
        extent: int32 [B, 2] (height, width) of the images, rounded up to multiples
            of 32.
        sizes: Square roots of the anchors' areas of each level, in pixels.
        aspect_ratios: Height over width.

    Raises:
        ValueError: If shapes and sizes differ in length.
    """
    if len(shapes) != len(sizes):
        raise UserError(
            f"RPN needs anchor_sizes for {len(shapes)} levels, got {len(sizes)}. Give "
            f"one group of sizes per level, such as ((32,), (64,), ...)."
        )
    # Symbolic shapes, as in `segjax.export`, are known to JAX only.
    known = all(isinstance(n, int) for shape in shapes for n in shape)
    xp = np if known else jnp
    cells = [ops.cell_anchors([float(x) for x in s], aspect_ratios) for s in sizes]
    boxes, valid, ids = zip(
        *(
            _level(cell, shape, i, extent, xp)
            for i, (cell, shape) in enumerate(zip(cells, shapes, strict=True))
        ),
        strict=True,
    )
    return Anchors(
        jnp.concatenate(boxes, axis=1),
        jnp.concatenate(valid, axis=1),
        xp.concatenate(ids),
        num_anchors=tuple(x.shape[0] for x in ids),
    )


def _level(
    cell: np.ndarray, shape: Sequence[int], level: int, extent: Array, xp: Any
) -> tuple[Array, Array, Array]:
    """Boxes [B, h * w * a, 4], valid [B, h * w * a], ids [h * w * a] of a level."""
    batch, (height, width) = extent.shape[0], shape
    stride = 4 * 2**level
    cells = -(-extent // stride)  # [B, 2], rounded up.
    step = extent // cells
    y = jnp.arange(height, dtype=jnp.int32)[None, :]
    x = jnp.arange(width, dtype=jnp.int32)[None, :]
    corner_y = jnp.broadcast_to((y * step[:, :1])[:, :, None], (batch, *shape))
    corner_x = jnp.broadcast_to((x * step[:, 1:])[:, None, :], (batch, *shape))
    corner = jnp.stack([corner_x, corner_y, corner_x, corner_y], axis=-1)
    boxes = corner[..., None, :].astype(jnp.float32) + cell[None, None, None]
    inside = (y < cells[:, :1])[:, :, None] & (x < cells[:, 1:])[:, None, :]
    valid = jnp.broadcast_to(inside[..., None], boxes.shape[:-1])
    # Unique for up to 2**13 rows and columns, 2**3 levels and 2**3 anchors per cell.
    row = xp.arange(height, dtype=xp.uint32)[:, None, None]
    column = xp.arange(width, dtype=xp.uint32)[None, :, None]
    kind = xp.arange(len(cell), dtype=xp.uint32)[None, None, :]
    ids = ((row * 2**13 + column) * 2**3 + kind) * 2**3 + level
    return boxes.reshape(batch, -1, 4), valid.reshape(batch, -1), ids.ravel()
