"""Crops masks to boxes as targets of a network, and pastes predicted masks back."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num

from segjax.ops import checks
from segjax.ops.roi_adaptive import averaging_matrices
from segjax.typing import Array

_AT_ONCE = 16  # Masks that `crop_masks` converts to floats at a time.


def crop_masks(
    masks: Bool[Array, "n h w"] | Integer[Array, "n h w"],
    index: Int[Array, " r"],
    boxes: Float[Array, "r 4"] | Integer[Array, "r 4"],
    *,
    size: int,
    aligned: bool = False,
    image_size: Int[Array, "2"] | None = None,
) -> Float[Array, "r m m"]:
    """Crops a mask to each box and resizes it to a fixed size.

    Args:
        masks: [N, H, W] True, or not 0, on the object.
        index: [R] index of the mask of each box.
        boxes: [R, 4] (x0, y0, x1, y1) in pixels, no larger than the image.
        size: M, the side of the result.
        aligned: True crops exactly the box; False crops half a pixel further down and
            right, as torchvision does.
        image_size: (height, width) of the image if the masks are padded, so that
            padding is not sampled; None if they are not.

    Returns:
        [R, M, M] float32 in [0, 1]: the fraction of each cell that is object, averaged
        over about one sample per pixel.

    Reference:
        torchvision's `project_masks_on_boxes`: ROIAlign, not aligned, with a number of
        samples that depends on the size of the box. See `roi_align_adaptive`. If
        aligned, detectron2's `BitMasks.crop_and_resize`.
    """
    checks.shapes(masks=(masks, "N H W"), index=(index, "R"), boxes=(boxes, "R 4"))
    height, width = masks.shape[1:]
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, jnp.float32))
    far = (None, None) if image_size is None else (image_size[0], image_size[1])
    rows, columns = (
        averaging_matrices(
            boxes[:, axis],
            boxes[:, axis + 2],
            length,
            cells=size,
            aligned=aligned,
            limit=limit,
        )
        for axis, length, limit in ((1, height, far[0]), (0, width, far[1]))
    )
    masks = jnp.asarray(checks.as_mask("masks", masks))

    def crop(one):
        which, row, column = one
        mask = masks[which].astype(row.dtype)
        # Columns first, so that the intermediate is [H, M].
        mixed = jnp.matmul(mask, column.T, precision="highest")
        return jnp.matmul(row, mixed, precision="highest")

    # In batches, because all R masks as floats may not fit in memory.
    return jax.lax.map(crop, (index, rows, columns), batch_size=_AT_ONCE)


def paste_masks(
    masks: Float[Array, "n m m"],
    boxes: Float[Array, "n 4"],
    *,
    size: tuple[int, int],
    aligned: bool = False,
) -> Float[Array, "n h w"]:
    """Pastes predicted masks into the image at their boxes, on the device.

    If aligned, pixels are bilinear interpolations of the mask at pixel centers, with
    zeros around the mask. This is the inverse of an aligned crop.

    If not aligned, a mask is padded by one cell of zeros and its box enlarged
    accordingly; the corners of the box are rounded towards 0, and the mask is resized
    to the pixels between the corners, inclusive, by bilinear interpolation. This shifts
    outlines by up to a pixel, which matters for small objects.

    Args:
        masks: [N, M, M] probabilities.
        boxes: [N, 4] (x0, y0, x1, y1) in pixels; parts outside the image are cropped.
        size: (height, width) of the image.
        aligned: As in `crop_masks` of the training targets.

    Returns:
        [N, H, W] float32 in [0, 1], 0 outside the boxes. Pixels of at least 0.5 are
        object.

    Reference:
        torchvision's `paste_masks_in_image`; aligned, detectron2's.
    """
    boxes = jnp.asarray(boxes, jnp.float32)
    rows, columns = _pasting(boxes, size, masks.shape[-1], jnp, aligned=aligned)
    masks = jnp.asarray(masks, jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    mixed = jnp.einsum("nwm,nkm->nwk", columns, masks, precision=highest)
    return jnp.einsum("nhk,nwk->nhw", rows, mixed, precision=highest)


def paste_masks_on_host(
    masks: Float[Array, "n m m"],
    boxes: Float[Array, "n 4"],
    *,
    size: Sequence[int] | Num[Array, "2"],
    aligned: bool = False,
) -> Float[np.ndarray, "n h w"]:
    """`paste_masks` in NumPy, which needs no compilation for new image sizes.

    Args:
        masks: [N, M, M] probabilities.
        boxes: [N, 4] (x0, y0, x1, y1) in pixels.
        size: (height, width) of the image.
        aligned: As in `paste_masks`.

    Returns:
        [N, H, W] float32.
    """
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    height, width = (int(x) for x in size)
    size = height, width
    rows, columns = _pasting(boxes, size, masks.shape[-1], np, aligned=aligned)
    # One mask at a time, and only inside its box, which is a small part of the image.
    pasted = np.zeros((len(masks), height, width), np.float32)
    for mask, row, column, out in zip(masks, rows, columns, pasted, strict=True):
        i, j = (np.flatnonzero(x.any(axis=1)) for x in (row, column))
        if i.size and j.size:
            ys, xs = slice(i[0], i[-1] + 1), slice(j[0], j[-1] + 1)
            out[ys, xs] = row[ys] @ mask @ column[xs].T
    return pasted


def _pasting(
    boxes: Any, size: tuple[int, int], cells: int, xp: Any, *, aligned: bool
) -> Any:
    """Interpolation weights [N, H, M] and [N, W, M] from a mask's rows and columns."""
    weights = _weights_inside if aligned else _weights_of_corners
    return weights(boxes, size, cells, xp)


def _weights_inside(boxes: Any, size: tuple[int, int], cells: int, xp: Any):
    """Interpolation weights of aligned boxes."""
    weights = []
    for axis, length in ((1, size[0]), (0, size[1])):
        first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
        pixel = xp.arange(length, dtype=xp.float32)[None] + 0.5
        side = xp.maximum(last - first, 1e-6)
        place = ((pixel - first) / side * cells - 0.5)[..., None]
        cell = xp.arange(cells, dtype=xp.float32)[None, None]
        near = xp.maximum(1 - abs(place - cell), 0)
        weights.append(xp.where((last > first)[..., None], near, 0).astype(xp.float32))
    return weights


def _weights_of_corners(boxes: Any, size: tuple[int, int], cells: int, xp: Any):
    """Interpolation weights of boxes rounded to pixels, as in torchvision."""
    scale = (cells + 2) / cells
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    low, high = (xp.trunc(x).astype(xp.int32) for x in (center - half, center + half))
    weights = []
    for axis, length in ((1, size[0]), (0, size[1])):
        first, last = low[:, axis, None], high[:, axis, None]
        span = xp.maximum(last - first + 1, 1)
        pixel = xp.arange(length, dtype=xp.int32)[None]
        place = (pixel - first + 0.5) * ((cells + 2) / span).astype(xp.float32) - 0.5
        place = xp.clip(place, 0, cells + 1).astype(xp.float32)[..., None]
        # The first and the last cell are the padding of zeros and need no weights.
        cell = xp.arange(1, cells + 1, dtype=xp.float32)[None, None]
        near = xp.maximum(1 - abs(place - cell), 0)
        inside = (pixel >= first) & (pixel <= last)
        weights.append(xp.where(inside[..., None], near, 0).astype(xp.float32))
    return weights
