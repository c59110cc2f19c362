"""Surface scores that weigh the elements of outlines by their length."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from segjax import ops
from segjax.errors import UserError
from segjax.metrics.common import Masks
from segjax.metrics.surface_scores import (
    check_tolerance,
    extent_or_diagonal,
    with_empty,
)
from segjax.ops import checks
from segjax.typing import Array


def surface_scores_by_length(
    predicted: Masks,
    truth: Masks,
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] = (1.0, 1.0),
    extent: Array | None = None,
) -> dict[str, jax.Array]:
    """Computes `assd` and `nsd` of outlines between pixels, by their length.

    An element of an outline is a corner between four pixels that are not all equal.
    Pixels outside the image are False. The outline crosses the corner straight, or cuts
    one of the pixels off, which is how long the element is: the height or width of a
    pixel, half its diagonal, or twice that if two opposite pixels are cut off.
    Distances are between corners. Counting pixels, as `surface_scores` does, gives an
    outline along the diagonal 0.71 of the weight that its length deserves.

    Args:
        predicted: [..., H, W].
        truth: [..., H, W].
        tolerance: In the unit of `spacing`.
        spacing: (height, width) of a pixel.
        extent: [...] the largest possible distance in an image; by default the diagonal
            of [H, W] between pixel centers.

    Returns:
        `assd`, the mean distance in the unit of `spacing`, and `nsd`, the fraction in
        [0, 1] of the length of both outlines within the tolerance of the other; [...]
        each, for empty masks as in `surface_scores`.

    Raises:
        ValueError: If spacing is not two numbers above 0, or tolerance is below 0.

    Reference:
        Nikolov et al., Deep learning to achieve clinically applicable segmentation of
        head and neck anatomy for radiotherapy, 2018, arXiv:1809.04430, with the lengths
        of the authors' code.
    """
    checks.shapes(predicted=(predicted, "... H W"), truth=(truth, "... H W"))
    limit = check_tolerance(tolerance)
    if len(spacing) != 2:
        raise UserError(
            f"surface_scores_by_length needs a spacing of (height, width), got "
            f"{tuple(spacing)}. Use surface_scores for volumes."
        )
    extent = extent_or_diagonal(truth, spacing, extent)
    lengths = [_lengths(mask, spacing) for mask in (predicted, truth)]
    far = [ops.distance_transform(x == 0, spacing=spacing) for x in lengths]
    pairs = list(zip(lengths, far[::-1], strict=True))
    total = [jnp.sum(x, axis=(-2, -1)) for x in lengths]
    both = jnp.maximum(total[0] + total[1], jnp.finfo(jnp.float32).tiny)

    def mean(values):
        weighed = (jnp.sum(x * v, axis=(-2, -1)) for x, v in values)
        return sum(weighed) / both

    scores = {
        "assd": mean((x, jnp.where(x > 0, d, 0)) for x, d in pairs),
        "nsd": mean((x, d <= limit) for x, d in pairs),
    }
    return with_empty(scores, ("assd",), total, extent)


def _lengths(mask: Masks, spacing: Sequence[float]) -> jax.Array:
    """float32 [..., H + 1, W + 1]: the length of the element at each corner."""
    height, width = spacing
    diagonal = math.hypot(height, width) / 2
    # By the corner's pixels, in bits: top left 8, top right 4, bottom left 2, right 1.
    table = np.full(16, diagonal, np.float32)
    table[[0, 15]] = 0
    table[[0b0011, 0b1100]] = width
    table[[0b0101, 0b1010]] = height
    table[[0b0110, 0b1001]] = 2 * diagonal
    mask = jnp.asarray(checks.as_mask("mask", mask))
    padded = jnp.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(1, 1), (1, 1)])
    padded = padded.astype(jnp.int32)
    top, bottom = padded[..., :-1, :], padded[..., 1:, :]
    code = 8 * top[..., :-1] + 4 * top[..., 1:] + 2 * bottom[..., :-1] + bottom[..., 1:]
    return jnp.take(table, code)
