"""Contingency table of true and predicted objects, on the host."""

import dataclasses

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Int

Ids = Int[np.ndarray, "b h w"]
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
    p, t = (np.asarray(x)[valid].astype(np.int64) for x in (predicted, truth))
    base = p.max(initial=0) + 1
    pairs, pixels = np.unique(t * base + p, return_counts=True)
    return Contingency(pairs // base, pairs % base, pixels)


def connected_components(
    mask: Bool[np.ndarray, "b h w"], *, connectivity: int = 1
) -> Ids:
    """Labels the connected components of each image from 1, on the host.

    Args:
        mask: [B, H, W].
        connectivity: 1 for neighbors that share a side, 2 for corners as well.

    Returns:
        int32 [B, H, W]; 0 where the mask is False.
    """
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
