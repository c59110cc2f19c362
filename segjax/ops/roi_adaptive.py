"""ROIAlign with as many samples as a box is large, exact and with fixed shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from segjax.ops.roi_cells import cell_entries
from segjax.typing import Array


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
        spatial_scale: Features per pixel, such as 1 / 4.
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
    place, weight = cell_entries(
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
