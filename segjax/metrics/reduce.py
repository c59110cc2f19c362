"""Ratios and means that ignore undefined values (NaN)."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def ratio(part: ArrayLike, whole: ArrayLike) -> Any:
    """Computes `part / whole` in float64; NaN where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def nanmean(values: ArrayLike) -> float:
    """Mean of values that are not NaN, independent of their order; NaN if all are."""
    seen = np.asarray(values, np.float64).ravel()
    seen = seen[~np.isnan(seen)]
    return math.fsum(seen) / seen.size if seen.size else math.nan


def mean_over_classes(values: ArrayLike) -> Any:
    """Mean over the last axis of the values that are not NaN; NaN if all are."""
    seen = ~np.isnan(values)
    return ratio(np.where(seen, values, 0).sum(-1), seen.sum(-1))
