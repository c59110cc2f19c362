"""Label maps of probabilities, and their connected components as objects."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.ndimage

from segjax import ops
from segjax.inference import objects as objects_lib
from segjax.inference.objects import Objects, components
from segjax.inference.predictor import labels


def label_map(probs: np.ndarray, *, multilabel: bool = False) -> np.ndarray:
    """Returns class ids [..., H, W] of probabilities [..., H, W, C].

    For multilabel models, pixels where no class has at least 0.5 have the ignore index
    of the dtype.
    """
    ids = labels(probs)
    if multilabel:
        return np.where(probs.max(-1) >= 0.5, ids, ops.ignore_index(ids.dtype))
    return ids


def empty_label(dtype: np.dtype, *, multilabel: bool) -> int:
    """The label of pixels without an object: 0, or none for multilabel models."""
    return int(ops.ignore_index(dtype)) if multilabel else 0


def keep_classes(label: np.ndarray, kept: Sequence[int], *, empty: int) -> np.ndarray:
    """Replaces the labels of all other classes by `empty`."""
    return np.where(np.isin(label, kept), label, label.dtype.type(empty))


def without_small_regions(
    label: np.ndarray, min_area: int, *, empty: int
) -> np.ndarray:
    """Replaces connected components of fewer than `min_area` pixels by `empty`."""
    made = label.copy()
    for _, where in _classes(label, empty):
        pieces, _ = components(where)
        small = np.bincount(pieces.ravel()) < min_area
        small[0] = False
        made[small[pieces]] = empty
    return made


def regions(
    label: np.ndarray, *, empty: int, confidence: np.ndarray | None = None
) -> Objects:
    """Finds the connected components of each class, by sides, in order of class.

    Args:
        label: [H, W] class ids.
        empty: The label that is no object.
        confidence: [H, W]; a component's score is its mean. None for scores of 1.
    """
    parts = [objects_lib.from_ids(np.zeros(label.shape, np.int32))]
    for number, where in _classes(label, empty):
        pieces, count = components(where)
        parts.append(
            scored(pieces, np.arange(1, count + 1), number, confidence=confidence)
        )
    return objects_lib.concatenate(parts)


def scored(
    ids: np.ndarray,
    numbers: np.ndarray,
    class_id: int,
    *,
    confidence: np.ndarray | None,
) -> Objects:
    """Builds objects of one class of a map of ids, with mean confidences as scores."""
    scores = None
    if confidence is not None and len(numbers):
        means = scipy.ndimage.mean(confidence.astype(np.float32), ids, numbers)
        scores = dict(zip(numbers.tolist(), np.asarray(means).tolist(), strict=True))
    classes = dict.fromkeys(numbers.tolist(), class_id)
    return objects_lib.from_ids(ids, classes=classes, scores=scores)


def _classes(label: np.ndarray, empty: int) -> Iterator[tuple[int, np.ndarray]]:
    for number in np.unique(label).tolist():
        if number != empty:
            yield number, label == number
