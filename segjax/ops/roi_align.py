"""ROIAlign: pools the features of each box to a fixed grid.

Features are gathered at each row and column that a sample interpolates, and the
gradient is scattered to them. docs/speed.md compares this with products of weight
matrices, as in `roi_align_adaptive`. On GPUs the order in which a scatter sums, and so
the last bits, is not fixed unless XLA's deterministic operations are enabled.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Integer

from segjax.errors import UserError
from segjax.ops import checks
from segjax.ops.roi_cells import cell_entries
from segjax.typing import Array


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "r 4"] | Integer[Array, "r 4"],
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Array, "r p q c"]:
    """Averages interpolated samples in the cells of a grid over each box.

    A box is divided into `output_size` cells; each averages sampling_ratio ** 2 samples
    on a regular grid, bilinearly interpolated. Samples up to one feature outside the
    map are moved to its border; farther samples are 0.

    Args:
        features: [H, W, C].
        boxes: [R, 4] (x0, y0, x1, y1) in pixels of the image.
        output_size: (P, Q), rows and columns of cells.
        spatial_scale: Features per pixel, such as 1 / 4.
        sampling_ratio: Samples per cell along each axis, at least 1.
        aligned: True: the center of the top left feature is at (0.5, 0.5) features, as
            for pixels. False: it is at (0, 0), and boxes are at least one feature wide
            and high, as in torchvision's detectors.

    Returns:
        [R, P, Q, C] in the dtype of the features. Gradients flow to the features only,
        as in torchvision. They are in reverse mode: `jax.grad`, also of a gradient, and
        `jax.hessian` work, `jax.jvp` of this function raises a TypeError.

    Raises:
        ValueError: If sampling_ratio is below 1.

    Reference:
        He et al., Mask R-CNN, ICCV 2017, arXiv:1703.06870, section 3; equals
        `torchvision.ops.roi_align`. Its adaptive number of samples (sampling_ratio=-1)
        is `roi_align_adaptive`.
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
    boxes: Float[Array, "r 4"] | Integer[Array, "r 4"],
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    sizes: Int[Array, "l 2"] | None = None,
) -> Float[Array, "r p q c"]:
    """Computes `roi_align` of each box on the pyramid level of its size.

    Args:
        pyramid: L maps [H, W, C], finest first.
        boxes: [R, 4] (x0, y0, x1, y1) in pixels of the image.
        output_size: (P, Q), rows and columns of cells.
        spatial_scales: Features per pixel on each level, such as (1 / 4, 1 / 8); each
            half of the previous one.
        sampling_ratio: Samples per cell along each axis, at least 1.
        aligned: As in `roi_align`; False in torchvision's detectors.
        sizes: [L, 2] (height, width) of the maps without padding, so that padding is
            not sampled; None for the whole maps.

    Returns:
        [R, P, Q, C] in the dtype of the features.

    Raises:
        ValueError: If sampling_ratio is below 1.

    Reference:
        Lin et al., Feature Pyramid Networks, CVPR 2017, arXiv:1612.03144, equation 1;
        equals torchvision's `MultiScaleRoIAlign`.
    """
    _check_sampling_ratio(sampling_ratio)
    if len(pyramid) != len(spatial_scales):
        raise UserError(
            f"roi_align needs one of spatial_scales for each map, got "
            f"{len(spatial_scales)} for {len(pyramid)}."
        )
    checks.shapes(boxes=(boxes, "R 4"), features=(pyramid[0], "H W C"))
    boxes = jax.lax.stop_gradient(checks.as_floats("boxes", boxes))
    level = roi_levels(boxes, spatial_scales=spatial_scales)
    shapes = jnp.asarray([x.shape[:2] for x in pyramid], jnp.int32)
    starts = jnp.asarray(_starts(pyramid), jnp.int32)
    limits = shapes if sizes is None else jnp.asarray(sizes, jnp.int32)
    scale = jnp.asarray(spatial_scales, boxes.dtype)[level]
    # One table of all levels, so that a box gathers from its level only.
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
    """Assigns each box to a level of the pyramid by its size.

    A box of `canonical_size` squared pixels is assigned to scale 2 ** -canonical_level,
    a box of half that size to the next finer level, and so on within the given levels.

    Args:
        boxes: [R, 4] in pixels.
        spatial_scales: Features per pixel on each level, finest first.
        canonical_size: In pixels.
        canonical_level: Minus the base 2 logarithm of the scale for `canonical_size`.

    Returns:
        int32 [R] in [0, len(spatial_scales)).
    """
    lowest, highest = (-round(math.log2(spatial_scales[i])) for i in (0, -1))
    size = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    size = jnp.sqrt(size[:, 0] * size[:, 1])
    # 1e-6 as in torchvision, so that borders belong to the coarser level.
    level = jnp.floor(canonical_level + jnp.log2(size / canonical_size) + 1e-6)
    return (jnp.clip(level, lowest, highest) - lowest).astype(jnp.int32)


@jax.custom_vjp
def _gather(table, rows, columns, start, width):
    """Interpolates features at every pair of a row and a column: [R, P, Q, C]."""
    return _interpolate(table, rows, columns, start, width)


def _interpolate(table, rows, columns, start, width):
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
    # Not `_gather`, so that the gradient can be differentiated in forward mode.
    return _interpolate(table, *places), (table[:, :0], places)


def _scatter(residual, gradient):
    """Scatters all columns at once, which is faster on CPUs than one at a time."""
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
    """Start of each level in the table."""
    sizes = [x.shape[0] * x.shape[1] for x in pyramid]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _check_sampling_ratio(sampling_ratio: int) -> None:
    if sampling_ratio < 1:
        raise UserError(
            f"roi_align needs sampling_ratio of at least 1, got {sampling_ratio}. "
            f"For a number of samples that depends on the box, use roi_align_adaptive."
        )
