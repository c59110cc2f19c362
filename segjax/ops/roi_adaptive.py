"""ROIAlign with a number of samples that depends on the box size, with fixed shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Integer

from segjax.ops import checks
from segjax.ops.roi_cells import cell_entries
from segjax.typing import Array


def roi_align_adaptive(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "r 4"] | Integer[Array, "r 4"],
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    aligned: bool,
) -> Float[Array, "r p q c"]:
    """Computes `roi_align` with about one sample per feature.

    A cell of a box of h features has ceil(h / P) samples along the height. The number
    of samples has no fixed shape, but their average is a product with one matrix for
    the height and one for the width, which have fixed shapes. The result is exact.

    Args:
        features: [H, W, C].
        boxes: [R, 4] (x0, y0, x1, y1) in pixels of the image.
        output_size: (P, Q), rows and columns of cells.
        spatial_scale: Features per pixel, such as 1 / 4.
        aligned: As in `roi_align`.

    Returns:
        [R, P, Q, C] in the dtype of the features; 0 for a box without area if
        `aligned`. Gradients flow to the features only.

    Reference:
        `torchvision.ops.roi_align` with `sampling_ratio=-1`. Equal for boxes not larger
        than the map; for larger boxes the number of samples is limited to that of the
        whole map.
    """
    height, width, _ = features.shape
    checks.shapes(features=(features, "H W C"), boxes=(boxes, "R 4"))
    boxes = jax.lax.stop_gradient(checks.as_floats("boxes", boxes)) * spatial_scale
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
    """Computes the weights of an axis's features in the cells from start to end.

    Args:
        start: [R] in features.
        end: [R] in features.
        size: H, features of the axis.
        cells: P.
        aligned: As in `roi_align`.
        limit: Number of features without padding; None for all.

    Returns:
        [R, P, H]; a row sums to 1, or to less if samples lie outside the map.
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
