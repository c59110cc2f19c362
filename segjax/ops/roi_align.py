"""ROIAlign: a fixed grid of features out of every box.

Features are gathered at each pair of a row and a column that a sample mixes, and the
gradient is scattered to them. The other form is products with matrices of weights, as
in `roi_align_adaptive`. Measured in one run on two cores of a CPU, two samples along
each axis, four levels from the one given, in ms:

    images  finest     boxes  cells  forward         with gradient
                                     gather matrices scatter matrices
    16      8x8x64     16     7x7    0.8    3.7      5.2     5.6
    16      8x8x64     4      14x14  0.6    2.7      4.6     3.2
    8       16x16x64   32     7x7    0.9    5.3      5.8     8.4
    2       32x32x64   64     7x7    0.6    8.0      2.6     7.8
    1       64x64x256  128    7x7    1.6    47       13      55

The last column gathers forward. With it a training step of digits_mask_rcnn.py takes
0.98 times as long and one of dsb2018_mask_rcnn.py --small 1.09 times; with a gradient
that costs nothing 1.03 and 0.99 times. So there is one form. Other devices have not
been measured. The order in which a scatter sums, and so the last bits, is not fixed on
GPUs unless XLA is told so.
"""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.ops.roi_cells import cell_entries
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
        spatial_scale: Features per pixel, such as 1 / 4.
        sampling_ratio: Samples per cell along each axis, at least 1.
        aligned: True: the center of the top left feature is at (0.5, 0.5) features,
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
        spatial_scales: Features per pixel on each level, such as (1 / 4, 1 / 8); each
            half of the one before.
        sampling_ratio: Samples per cell along each axis, at least 1.
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
        cell_entries(
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
        spatial_scales: Features per pixel on each level, finest first.
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


@jax.custom_vjp
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


def _gather_forward(table, *places):
    return _gather(table, *places), (table[:, :0], places)


def _scatter(residual, gradient):
    """All columns at once: on a CPU up to four times as fast as one at a time."""
    table, ((rows, down), (columns, across), start, width) = residual
    rows = start[:, None, None] + rows * width[:, None, None]
    dtype = jnp.promote_types(gradient.dtype, jnp.float32)
    total = jnp.zeros((len(table), gradient.shape[-1]), dtype)
    for i in range(rows.shape[-1]):
        index = rows[:, :, None, i, None] + columns[:, None]
        weight = down[:, :, None, i, None] * across[:, None]
        update = weight.astype(dtype)[..., None] * gradient[:, :, :, None]
        total = total.at[index].add(update, mode="promise_in_bounds")
    return total.astype(table.dtype), None, None, None, None


_gather.defvjp(_gather_forward, _scatter)


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
