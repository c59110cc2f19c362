"""Betti numbers: whether a prediction has as many parts and holes as the truth."""

import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import label

from segjax.metrics.contingency import Ids
from segjax.metrics.rows import PerImage
from segjax.ops import checks
from segjax.typing import Batch


def betti_numbers(
    mask: Bool[np.ndarray, "h w"] | Integer[np.ndarray, "h w"],
) -> tuple[int, int]:
    """Counts the connected components and the holes of a mask, on the host.

    Args:
        mask: [H, W] True, or not 0, on the object.

    Returns:
        Components, of pixels that share a side or a corner, and holes: components of
        the rest, by sides, that do not reach the edge of the image.

    Raises:
        ValueError: If the mask has floats or another number of axes.
    """
    checks.shapes(mask=(mask, "H W"))
    mask = np.asarray(checks.as_mask("mask", mask))
    padded = np.pad(mask, 1)  # So that all outside of the edge is one component.
    ids = np.zeros(padded.shape, np.int32)
    label(padded, np.ones((3, 3), int), output=ids)
    components = int(ids.max())
    label(~padded, output=ids)
    return components, int(ids.max()) - 1


def betti_scores(
    predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
) -> PerImage:
    """Computes the differences of the Betti numbers of the foreground, on the host.

    The foreground is the pixels of any object; invalid pixels are outside.

        metrics.regions(metrics.betti_scores)

    Args:
        predicted: [B, H, W] ids, 0 for none.
        truth: [B, H, W] ids, 0 for none.
        valid: [B, H, W] True where a pixel is evaluated.
        batch: Has `index` and `weight`, both [B].

    Returns:
        `betti_0_error_per_image`, the absolute difference of the numbers of components,
        `betti_1_error_per_image`, of the holes, and `betti_error_per_image`, their sum.
        0 if both are empty, NaN without valid pixels.

    Reference:
        Hu et al., Topology-Preserving Deep Image Segmentation, 2019, section 4.
        arXiv:1906.05404. The paper averages over random patches; this is over whole
        images.
    """
    valid = np.asarray(checks.as_mask("valid", valid))
    errors = []
    for a, b, where in zip(predicted, truth, valid, strict=True):
        sides = [betti_numbers(where & (np.asarray(x) != 0)) for x in (a, b)]
        parts, holes = (abs(p - t) for p, t in zip(*sides, strict=True))
        errors.append([parts, holes, parts + holes] if where.any() else [np.nan] * 3)
    names = ("betti_0_error", "betti_1_error", "betti_error")
    columns = np.array(errors, np.float64).reshape(-1, 3).T
    scores = {f"{k}_per_image": v for k, v in zip(names, columns, strict=True)}
    return PerImage.from_batch(scores, batch)
