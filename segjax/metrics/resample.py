"""Intervals of scores that are no mean over images, by drawing images anew."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from segjax.metrics.statistics import Interval, check_confidence_level

Scores = dict[str, float]


def metric_intervals(
    metric: Any, *, confidence_level: float = 0.95, num_resamples: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap intervals (percentile) of all scores of a metric, over images.

    For scores such as the IoU over all pixels: images are drawn with replacement,
    and the scores are computed anew from their rows.

    Args:
        metric: Has `num_images`, `take(positions)` and `compute()`, as
            `ImageConfusion`, `Matching` and all others made of rows do.
        confidence_level: Share of such intervals that hold the true figure.
        num_resamples: Each costs one `compute`.
        seed: Of the resampling; one seed gives one answer.

    Returns:
        An interval for each key; draws in which a metric is NaN are left out of it.

    Raises:
        ValueError: If confidence is not between 0 and 1, or there is no image.
    """
    check_confidence_level(confidence_level)
    draws = [
        metric.take(positions).compute()
        for positions in _positions(metric.num_images, num_resamples, seed)
    ]
    return _intervals(metric.compute(), draws, confidence_level)


def metric_differences(
    a: Any, b: Any, *, confidence_level: float = 0.95, num_resamples: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap intervals (percentile) of a's scores less b's, over images.

    Each draw takes the same images for both systems, so that what makes an image hard
    for both does not widen the interval. An interval without 0 says that the
    difference would hold on other images; nothing about other seeds.

    Args:
        a: A metric as for `metric_intervals`.
        b: Another of the same kind, over the same images.
        confidence_level: Share of such intervals that hold the true difference.
        num_resamples: Each costs two `compute`.
        seed: Of the resampling; one seed gives one answer.

    Returns:
        An interval for each key that both have.

    Raises:
        ValueError: If the two are not of the same images, there is none, or
            confidence is not between 0 and 1.
    """
    check_confidence_level(confidence_level)
    if not np.array_equal(
        a.rows.without_padding().index, b.rows.without_padding().index
    ):
        raise ValueError(
            f"metric_differences needs the same images on both sides, got "
            f"{a.num_images} and {b.num_images} with other indices. Evaluate both "
            f"systems on one split."
        )

    def differ(take: Callable[[Any], Any]) -> Scores:
        mine, others = take(a).compute(), take(b).compute()
        return {k: mine[k] - others[k] for k in mine if k in others}

    draws = [
        differ(lambda metric, at=positions: metric.take(at))
        for positions in _positions(a.num_images, num_resamples, seed)
    ]
    return _intervals(differ(lambda metric: metric), draws, confidence_level)


def _positions(count: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    if count < 1:
        raise ValueError("Resampling needs at least one image, got none.")
    rng = np.random.default_rng(seed)
    return (rng.integers(0, count, count) for _ in range(num_resamples))


def _intervals(
    scores: Scores, draws: list[Scores], confidence_level: float
) -> dict[str, Interval]:
    tail = 50 * (1 - confidence_level)
    intervals = {}
    for key, value in scores.items():
        drawn = np.array([draw[key] for draw in draws], np.float64)
        drawn = drawn[~np.isnan(drawn)]
        ends = np.percentile(drawn, [tail, 100 - tail]) if drawn.size else [np.nan] * 2
        low, high = map(float, ends)
        intervals[key] = Interval(value=value, low=low, high=high)
    return intervals
