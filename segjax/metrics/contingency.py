"""Contingency table of true and predicted objects, on the host."""

import dataclasses

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Integer

from segjax.errors import UserError
from segjax.ops import checks

Ids = Integer[np.ndarray, "b h w"]
"""Object ids of each image; 0 for background."""


@dataclasses.dataclass(frozen=True)
class Contingency:
    """Pairs of ids that share pixels, in one image.

    Attributes:
        truth: [P] id in truth, 0 for none.
        predicted: [P] id in prediction, 0 for none.
        pixels: [P] pixels shared, above 0.
    """

    truth: np.ndarray
    predicted: np.ndarray
    pixels: np.ndarray

    @property
    def truth_sizes(self) -> dict[int, int]:
        """Pixels of each true object, by id."""
        return _sizes(self.truth, self.pixels)

    @property
    def predicted_sizes(self) -> dict[int, int]:
        """Pixels of each predicted object, by id."""
        return _sizes(self.predicted, self.pixels)

    def overlaps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(truth id, predicted id, shared pixels, pixels of either), objects only."""
        both = (self.truth > 0) & (self.predicted > 0)
        truth, predicted = self.truth[both], self.predicted[both]
        shared = self.pixels[both]
        truth_sizes, predicted_sizes = self.truth_sizes, self.predicted_sizes
        sizes = [
            truth_sizes[t] + predicted_sizes[p]
            for t, p in zip(truth.tolist(), predicted.tolist(), strict=True)
        ]
        return truth, predicted, shared, np.array(sizes, np.int64) - shared


def contingency(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray
) -> Contingency:
    """Computes the contingency table of one image.

    Args:
        predicted: [H, W] ids, 0 for none.
        truth: [H, W] ids, 0 for none.
        valid: [H, W] True where a pixel is evaluated.
    """
    checks.shapes(
        truth=(truth, "H W"), predicted=(predicted, "H W"), valid=(valid, "H W")
    )
    valid = np.asarray(checks.as_mask("valid", valid))
    sides = (("predicted", predicted), ("truth", truth))
    p, t = (as_ids(name, np.asarray(ids)[valid]) for name, ids in sides)
    # Numbered from 0, because the product of two large ids overflows.
    p_ids, p = np.unique(p, return_inverse=True)
    t_ids, t = np.unique(t, return_inverse=True)
    base = max(len(p_ids), 1)
    pairs, pixels = np.unique(t * base + p, return_counts=True)
    return Contingency(t_ids[pairs // base], p_ids[pairs % base], pixels)


def as_ids(name: str, ids: np.ndarray) -> np.ndarray:
    """int64 ids, checked to be integers of at least 0."""
    if ids.dtype.kind not in "biu" or (ids.size and int(ids.max()) >= 2**63):
        raise UserError(
            f"{name} needs ids of an integer dtype below 2**63, got {ids.dtype}. "
            f"Relabel them, or convert them to int64."
        )
    if ids.size and int(ids.min()) < 0:
        raise UserError(
            f"{name} needs ids of at least 0 where valid (0 is no object), got "
            f"{int(ids.min())}. Set `valid` to False there, or the id to 0."
        )
    return ids.astype(np.int64)


def connected_components(
    mask: Bool[np.ndarray, "b h w"] | Integer[np.ndarray, "b h w"],
    *,
    connectivity: int = 1,
) -> Ids:
    """Labels the connected components of each image from 1, on the host.

    Args:
        mask: [B, H, W] True, or not 0, on the objects.
        connectivity: 1 for neighbors that share a side, 2 for corners as well.

    Returns:
        int32 [B, H, W]; 0 where the mask is False.
    """
    if connectivity not in (1, 2):
        raise UserError(
            f"connectivity needs 1 (sides) or 2 (corners too), got {connectivity}."
        )
    mask = np.asarray(checks.as_mask("mask", mask))
    structure = scipy.ndimage.generate_binary_structure(2, connectivity)
    ids = np.zeros(mask.shape, np.int32)
    for image, where in zip(ids, mask, strict=True):
        scipy.ndimage.label(where, structure, output=image)
    return ids


def _sizes(ids: np.ndarray, pixels: np.ndarray) -> dict[int, int]:
    found, place = np.unique(ids, return_inverse=True)
    total = np.bincount(place, weights=pixels, minlength=len(found)).astype(np.int64)
    sizes = dict(zip(found.tolist(), total.tolist(), strict=True))
    sizes.pop(0, None)
    return sizes
