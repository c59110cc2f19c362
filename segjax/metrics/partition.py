"""Distances of partitions of an image: variation of information, adapted Rand."""

import numpy as np

from segjax.metrics.contingency import Ids, contingency
from segjax.metrics.rows import PerImage
from segjax.ops import checks
from segjax.typing import Batch

_ERRORS = ("voi", "voi_split", "voi_merge", "adapted_rand_error")


def partition_errors(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray
) -> dict[str, float]:
    """Computes the distances of two partitions of one image, on the host.

    Over the pixels of true objects, with T the true and P the predicted id of a pixel
    and H the entropy,

        voi_split = H(P | T)    voi_merge = H(T | P)    voi = their sum

    and with p_ij the fraction of the pixels of true object i and predicted object j,

        adapted_rand_error = 1 - 2 * sum p_ij**2 / (sum p_i**2 + sum p_j**2)

    Pixels without a predicted object are one object together; in `v_rand`, each is one
    of its own.

    Args:
        predicted: [H, W] ids, 0 for none.
        truth: [H, W] ids, 0 for none; pixels without an object are left out.
        valid: [H, W] True where a pixel is evaluated.

    Returns:
        `voi`, `voi_split` and `voi_merge` in bits, at least 0; `adapted_rand_error` in
        [0, 1). All 0 if equal, NaN without true objects.

    Raises:
        ValueError: If a shape or dtype is wrong, or an id is negative.

    Reference:
        Meila, Comparing clusterings by the variation of information, 2003. CREMI's
        scores, with all pixels of true objects, also near their edges.
    """
    valid = np.asarray(checks.as_mask("valid", valid))
    table = contingency(predicted, truth, valid & (np.asarray(truth) != 0))
    pixels = table.pixels.astype(np.float64)
    if not len(pixels):
        return dict.fromkeys(_ERRORS, float("nan"))
    sizes = [_sizes(ids, pixels) for ids in (table.truth, table.predicted)]
    split, merge = (
        float(np.sum(pixels * np.log2(size / pixels)) / pixels.sum()) for size in sizes
    )
    # Pairs of an object add up to its size, so this is the sum of squared sizes.
    squares = sum(float(np.sum(pixels * size)) for size in sizes)
    error = 1 - 2 * float(np.sum(pixels**2)) / squares
    return dict(zip(_ERRORS, (split + merge, split, merge, error), strict=True))


def partition_scores(
    predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
) -> PerImage:
    """Computes the `partition_errors` of the images of a batch, on the host.

    Args:
        predicted: [B, H, W] ids, 0 for none.
        truth: [B, H, W] ids, 0 for none.
        valid: [B, H, W] True where a pixel is evaluated.
        batch: Has `index` and `weight`, both [B].
    """
    images = zip(predicted, truth, valid, strict=True)
    errors = [partition_errors(*image) for image in images]
    columns = {f"{k}_per_image": np.array([e[k] for e in errors]) for k in _ERRORS}
    return PerImage.from_batch(columns, batch)


def _sizes(ids: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """For each pair, the pixels of the object of one side."""
    _, place = np.unique(ids, return_inverse=True)
    return np.bincount(place, weights=pixels)[place]
