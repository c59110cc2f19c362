"""Scores of classes from three counts: intersection, truth, predicted.

For all overlap scores, a class absent from truth and prediction has no score (NaN) and
is left out of means; a class present in only one of them scores 0.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from segjax.metrics.reduce import mean_over_classes, ratio


def class_scores(
    intersection: ArrayLike, truth: ArrayLike, predicted: ArrayLike
) -> dict[str, Any]:
    """Computes the scores of each class against the rest, in [0, 1].

    Args:
        intersection: [..., C] pixels of a class in both truth and prediction.
        truth: [..., C] pixels of a class in truth.
        predicted: [..., C] pixels predicted as a class.

    Returns:
        `iou`, `dice`, `precision`, `recall`: 0 if the class is in only one of truth and
        prediction.
        `specificity`, `binary_accuracy`: of the class against the rest; specificity is
        NaN if every pixel has the class in truth.
        `matthews`: Matthews' correlation of the class against the rest, in [-1, 1]; 0
        if every pixel or none is predicted as the class, NaN if every pixel has it in
        truth.
        `volume_similarity`: 1 - |predicted - truth| / (predicted + truth), which
        ignores where the pixels are.
        All are [..., C], and NaN for a class absent from truth and prediction.
    """
    intersection, truth, predicted = _float64(intersection, truth, predicted)
    union = truth + predicted - intersection
    pixels = truth.sum(-1)[..., None] + np.zeros_like(truth)

    def or_zero(values):
        return np.where(union > 0, np.nan_to_num(values, nan=0.0), np.nan)

    specificity = ratio(pixels - union, pixels - truth)
    accuracy = ratio(pixels - union + intersection, pixels)
    covariance = intersection * pixels - truth * predicted
    spread = np.sqrt(truth * (pixels - truth) * predicted * (pixels - predicted))
    matthews = np.where(truth < pixels, or_zero(ratio(covariance, spread)), np.nan)
    return {
        "iou": ratio(intersection, union),
        "dice": ratio(2 * intersection, truth + predicted),
        "precision": or_zero(ratio(intersection, predicted)),
        "recall": or_zero(ratio(intersection, truth)),
        "specificity": np.where(union > 0, specificity, np.nan),
        "binary_accuracy": np.where(union > 0, accuracy, np.nan),
        "matthews": matthews,
        "volume_similarity": 1 - ratio(np.abs(truth - predicted), truth + predicted),
    }


def image_scores(
    intersection: ArrayLike, truth: ArrayLike, predicted: ArrayLike
) -> dict[str, Any]:
    """Computes the scores of an image or data set; arguments as for `class_scores`.

    Returns:
        `mean_<score>` of each class score: over classes that have it.
        `mean_accuracy`: recall, over classes in truth.
        `pixel_accuracy`: over pixels.
        `kappa`: Cohen's, in [-1, 1]; NaN if truth and prediction consist of the same
        single class.
        `matthews`: Matthews' correlation of all classes (Gorodkin's R_K), in [-1, 1]; 0
        if a single class is predicted, NaN if truth consists of a single class.
        `frequency_weighted_iou`: IoU weighted by the frequency of the class in truth.
        All are [...], and NaN without valid pixels.
    """
    intersection, truth, predicted = _float64(intersection, truth, predicted)
    scores = class_scores(intersection, truth, predicted)
    means = {f"mean_{k}": mean_over_classes(v) for k, v in scores.items()}
    pixels = truth.sum(-1)
    agreed = ratio(intersection.sum(-1), pixels)
    chance = ratio((truth * predicted).sum(-1), pixels**2)
    squares = [pixels**2 - (x**2).sum(-1) for x in (truth, predicted)]
    covariance = intersection.sum(-1) * pixels - (truth * predicted).sum(-1)
    matthews = np.nan_to_num(ratio(covariance, np.sqrt(squares[0] * squares[1])))
    weighted = np.nan_to_num(scores["iou"], nan=0.0) * truth
    return means | {
        "mean_accuracy": mean_over_classes(ratio(intersection, truth)),
        "pixel_accuracy": agreed,
        "kappa": ratio(agreed - chance, 1 - chance),
        "matthews": np.where(squares[0] > 0, matthews, np.nan),
        "frequency_weighted_iou": ratio(weighted.sum(-1), pixels),
    }


def _float64(*arrays: ArrayLike) -> list[np.ndarray]:
    return [np.asarray(x, np.float64) for x in arrays]
