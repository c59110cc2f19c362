"""ROIAlign: a fixed grid of features out of every box.

Features are gathered at each pair of a row and a column that a sample mixes. On a CPU,
128 boxes of 7x7 cells on 64x64x256 features took less than a tenth of the time of
products with matrices of interpolation weights, and with the gradient less than a
third. Other devices have not been measured. The gradient is a scatter, whose order of
summation, and so the last bits, is not fixed on GPUs unless XLA is told so.
"""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.typing import Array


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "r 4"],
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Array, "r p q c"]:
    """Averages of samples in the cells of a grid over each box.

    A box is divided into `output_size` cells; in each, sampling_ratio ** 2 samples on
    a regular grid are read, mixed of the four nearest features. A sample up to one
    feature outside of the map is read at its border; farther, it is 0.

    Args:
        features: [H, W, C].
        boxes: [R, 4] (x0, y0, x1, y1) in pixels of the image.
        output_size: (P, Q), rows and columns of cells.
        spatial_scale: Features a pixel, such as 1 / 4.
        sampling_ratio: Samples a cell along each axis, at least 1.
        aligned: True: the centre of the top left feature is at (0.5, 0.5) features,
            as pixels have it. False: at (0, 0), and boxes are at least one feature
            wide and high; torchvision's detectors were trained so.

    Returns:
        [R, P, Q, C] in the dtype of the features. Gradients flow to the features
        alone, as in torchvision.

    Raises:
        ValueError: If sampling_ratio is below 1.

    Reference:
        He et al., Mask R-CNN, ICCV 2017, arXiv:1703.06870, section 3; equals
        `torchvision.ops.roi_align`. Its number of samples that adapts to the box has
        no fixed shape here: `roi_align_adaptive` has it.
    """
    return multilevel_roi_align(
        [features],
        boxes,
        output_size=output_size,
        spatial_scales=(spatial_scale,),
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def roi_align_adaptive(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "r 4"],
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    aligned: bool,
) -> Float[Array, "r p q c"]:
    """`roi_align` with about one sample a feature: as many as the box is large.

    A cell of a box of h features has ceil(h / P) samples along the height. Their
    number has no fixed shape, but their sum is a product with one matrix for the
    height and one for the width, which have: so it is exact.

    Args:
        features: [H, W, C].
        boxes: [R, 4] (x0, y0, x1, y1) in pixels of the image.
        output_size: (P, Q), rows and columns of cells.
        spatial_scale: Features a pixel, such as 1 / 4.
        aligned: As in `roi_align`.

    Returns:
        [R, P, Q, C] in the dtype of the features; 0 for a box without area if
        `aligned`. Gradients flow to the features alone.

    Reference:
        `torchvision.ops.roi_align` with `sampling_ratio=-1`. It equals that for boxes
        no higher and wider than the map; larger ones have no more samples than
        that.
    """
    height, width, _ = features.shape
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes)) * spatial_scale
    rows, columns = (
        averaging_matrices(
            boxes[:, axis], boxes[:, axis + 2], size, cells=cells, aligned=aligned
        ).astype(features.dtype)
        for axis, size, cells in (
            (1, height, output_size[0]),
            (0, width, output_size[1]),
        )
    )
    highest = jax.lax.Precision.HIGHEST
    mixed = jnp.einsum("rph,hwc->rpwc", rows, features, precision=highest)
    return jnp.einsum("rqw,rpwc->rpqc", columns, mixed, precision=highest)


def averaging_matrices(
    start: Float[Array, " r"],
    end: Float[Array, " r"],
    size: int,
    *,
    cells: int,
    aligned: bool,
    limit: Int[Array, ""] | int | None = None,
) -> Float[Array, "r p h"]:
    """Weights of an axis's features in the cells between start and end.

    Args:
        start: [R] in features.
        end: [R] in features.
        size: H, features of the axis.
        cells: P.
        aligned: As in `roi_align`.
        limit: How many features count, where the rest is padding; None for all.

    Returns:
        [R, P, H]; a row adds up to 1, or to less where samples lie outside of the map.
    """
    length = end - start if aligned else jnp.maximum(end - start, 1)
    most = -(-size // cells)
    count = jnp.clip(jnp.ceil(length / cells), 0, most)
    place, weight = _entries(
        start,
        end,
        jnp.full(start.shape, size if limit is None else limit, jnp.int32),
        cells=cells,
        aligned=aligned,
        count=count,
        most=most,
    )
    feature = jnp.arange(size, dtype=jnp.int32)[None, None, None]
    here = place[..., None] == feature
    return jnp.sum(jnp.where(here, weight[..., None], 0), axis=2)


def multilevel_roi_align(
    pyramid: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "r 4"],
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    sizes: Int[Array, "l 2"] | None = None,
) -> Float[Array, "r p q c"]:
    """`roi_align` of each box on the level of a pyramid that suits its size.

    Args:
        pyramid: L maps [H, W, C], finest first.
        boxes: [R, 4] (x0, y0, x1, y1) in pixels of the image.
        output_size: (P, Q), rows and columns of cells.
        spatial_scales: Features a pixel on each level, such as (1 / 4, 1 / 8); each
            half of the one before.
        sampling_ratio: Samples a cell along each axis, at least 1.
        aligned: As in `roi_align`; False in torchvision's detectors.
        sizes: [L, 2] (height, width) of the maps that count, where the rest is
            padding: their far border is there. None for the whole maps.

    Returns:
        [R, P, Q, C] in the dtype of the features.

    Raises:
        ValueError: If sampling_ratio is below 1.

    Reference:
        Lin et al., Feature Pyramid Networks, CVPR 2017, arXiv:1612.03144, equation 1;
        equals torchvision's `MultiScaleRoIAlign`.
    """
    _check_sampling_ratio(sampling_ratio)
    chex.assert_equal(len(pyramid), len(spatial_scales))
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes))
    level = roi_levels(boxes, spatial_scales=spatial_scales)
    shapes = jnp.asarray([x.shape[:2] for x in pyramid], jnp.int32)
    starts = jnp.asarray(_starts(pyramid), jnp.int32)
    limits = shapes if sizes is None else jnp.asarray(sizes, jnp.int32)
    scale = jnp.asarray(spatial_scales, boxes.dtype)[level]
    # One table of all levels, so that a box reads only its own.
    table = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in pyramid])
    count = jnp.full(boxes.shape[:1], sampling_ratio, boxes.dtype)
    rows, columns = (
        _entries(
            boxes[:, axis] * scale,
            boxes[:, axis + 2] * scale,
            limits[level, 1 - axis],
            cells=output_size[1 - axis],
            aligned=aligned,
            count=count,
            most=sampling_ratio,
        )
        for axis in (1, 0)
    )
    return _gather(table, rows, columns, starts[level], shapes[level, 1])


def roi_levels(
    boxes: Float[Array, "r 4"],
    *,
    spatial_scales: Sequence[float],
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Int[Array, " r"]:
    """The position in the pyramid of the level that suits each box.

    A box of `canonical_size` squared pixels is read at a scale of
    2 ** -canonical_level, one of half that size a level finer, as far as there are
    levels.

    Args:
        boxes: [R, 4] in pixels.
        spatial_scales: Features a pixel on each level, finest first.
        canonical_size: In pixels.
        canonical_level: Minus the base 2 logarithm of a scale.

    Returns:
        int32 [R] in [0, len(spatial_scales)).
    """
    lowest, highest = (-round(math.log2(spatial_scales[i])) for i in (0, -1))
    size = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    size = jnp.sqrt(size[:, 0] * size[:, 1])
    # 1e-6, torchvision's, decides for the coarser one where rounding would.
    level = jnp.floor(canonical_level + jnp.log2(size / canonical_size) + 1e-6)
    return (jnp.clip(level, lowest, highest) - lowest).astype(jnp.int32)


def _entries(start, end, limit, *, cells: int, aligned: bool, count, most: int):
    """The features of an axis that each cell mixes, and how much of each it takes.

    Args:
        start: [R] where boxes begin, in features.
        end: [R] where they end.
        limit: [R] features of the axis.
        cells: P.
        aligned: As in `roi_align`.
        count: [R] samples a cell, in the dtype of `start`.
        most: S, the largest of them.

    Returns:
        Two [R, P, 2 * S], positions (int32) and weights: two neighbours a sample.
    """
    if aligned:
        start, end = start - 0.5, end - 0.5
    size = end - start if aligned else jnp.maximum(end - start, 1)
    start, size, limit, count = (x[:, None, None] for x in (start, size, limit, count))
    size = size / cells
    cell = jnp.arange(cells, dtype=start.dtype)[None, :, None]
    sample = jnp.arange(most, dtype=start.dtype)[None, None]
    step = size / jnp.maximum(count, 1)
    place = start + cell * size + (sample + 0.5) * step
    far = limit.astype(start.dtype)
    counts = (sample < count) & (place >= -1) & (place <= far)
    place = jnp.clip(place, 0, far - 1)
    low = place.astype(jnp.int32)
    part = place - low
    weight = jnp.concatenate([1 - part, part], axis=-1) / jnp.maximum(count, 1)
    counts = jnp.concatenate([counts, counts], axis=-1)
    both = jnp.concatenate([low, jnp.minimum(low + 1, limit - 1)], axis=-1)
    return both, jnp.where(counts, weight, 0)


def _gather(table, rows, columns, start, width):
    """[R, P, Q, C]: the mix of the features at every pair of a row and a column."""
    (rows, down), (columns, across) = rows, columns
    rows = start[:, None, None] + rows * width[:, None, None]
    mix = jnp.zeros((), table.dtype)
    for i in range(rows.shape[-1]):
        for j in range(columns.shape[-1]):
            index = rows[:, :, None, i] + columns[:, None, :, j]
            weight = down[:, :, None, i] * across[:, None, :, j]
            feature = table.at[index].get(mode="promise_in_bounds")
            mix = mix + weight.astype(table.dtype)[..., None] * feature
    return mix


def _starts(pyramid) -> list[int]:
    """Where each level begins in the table."""
    sizes = [x.shape[0] * x.shape[1] for x in pyramid]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _check_sampling_ratio(sampling_ratio: int) -> None:
    if sampling_ratio < 1:
        raise ValueError(
            f"roi_align needs sampling_ratio of at least 1, got {sampling_ratio}. "
            f"For as many samples as the box is large, use roi_align_adaptive."
        )
