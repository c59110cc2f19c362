"""Differences between groups of runs: t-tests whose intervals agree with them."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from segjax.errors import UserError
from segjax.metrics.statistics import check_confidence_level, holm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two means.

    Attributes:
        value: Mean of a minus mean of b.
        low: Lower end of its confidence interval.
        high: Upper end.
        p_value: Of the two-sided test that the true difference is 0. It is below
            1 - confidence level if and only if the interval does not hold 0.
        n: Pairs, or for independent groups the size of the smaller one.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int


Test = Callable[[ArrayLike, ArrayLike, float], Difference]


def paired_difference(
    a: ArrayLike, b: ArrayLike, confidence_level: float = 0.95
) -> Difference:
    """Computes the mean of a - b over pairs, by Student's paired t-test.

    For runs of two experiments with the same seeds, of which each pair shares the
    initialization and the order of the data.

    Args:
        a: [N] scores; pairs with NaN are left out.
        b: [N] scores of the same seeds.
        confidence_level: Of the interval.

    Returns:
        The difference; interval and p-value are NaN for fewer than two pairs. If all
        pairs differ equally, the interval is a point, and p is 1 for 0, else 0.

    Raises:
        ValueError: If a and b are not [N] of the same size.
    """
    import scipy.stats

    check_confidence_level(confidence_level)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UserError(
            f"paired_difference needs pairs, got {a.shape} and {b.shape} scores. Use "
            f"welch_difference for groups of other seeds."
        )
    differences = (a - b)[~np.isnan(a - b)]
    count = differences.size
    if count < 2:
        value = float(differences[0]) if count else math.nan
        return _unknown(value, count)
    error = float(differences.std(ddof=1) / math.sqrt(count))
    half = float(scipy.stats.t.ppf((1 + confidence_level) / 2, count - 1)) * error
    scale = float(np.nanmax(np.abs([a, b])))
    value = float(differences.mean())
    return _with_error(value, error, half, float(count - 1), scale=scale, n=count)


def welch_difference(
    a: ArrayLike, b: ArrayLike, confidence_level: float = 0.95
) -> Difference:
    """Computes the difference of the means of two groups, by Welch's t-test.

    Args:
        a: [N] scores; NaN are left out.
        b: [M] scores, independent of a. The variances may differ.
        confidence_level: Of the interval.

    Returns:
        The difference; interval and p-value are NaN if a group has fewer than two
        scores. If neither varies, the interval is a point, and p is 1 for 0, else 0.

    Reference:
        Welch, The generalization of "Student's" problem when several different
        population variances are involved, 1947.
    """
    import scipy.stats

    check_confidence_level(confidence_level)
    sides = [np.asarray(x, np.float64).ravel() for x in (a, b)]
    sides = [x[~np.isnan(x)] for x in sides]
    least = min(x.size for x in sides)
    value = float(sides[0].mean() - sides[1].mean()) if least else math.nan
    if least < 2:
        return _unknown(value, least)
    parts = [float(x.var(ddof=1)) / x.size for x in sides]
    error = math.sqrt(sum(parts))
    spread = sum(p**2 / (x.size - 1) for p, x in zip(parts, sides, strict=True))
    freedom = sum(parts) ** 2 / spread if spread else float(least)
    half = float(scipy.stats.t.ppf((1 + confidence_level) / 2, freedom)) * error
    scale = float(max(np.abs(x).max() for x in sides))
    return _with_error(value, error, half, freedom, scale=scale, n=least)


def corrected_differences(
    groups: Sequence[ArrayLike] | np.ndarray,
    pairs: Sequence[tuple[int, int]],
    test: Test,
    *,
    confidence_level: float = 0.95,
) -> list[Difference]:
    """Computes the differences of pairs of groups, corrected for their number.

    Args:
        groups: G groups of scores, as the test takes them.
        pairs: (i, j): group i minus group j.
        test: `paired_difference` or `welch_difference`.
        confidence_level: The chance that all intervals hold the true differences.

    Returns:
        By pair: the difference with Holm's p-value, and an interval at the level of
        Bonferroni's correction. If that excludes 0, the p-value is below
        1 - confidence_level; it may be so too where the interval does not, because
        Holm's test is the more powerful one.
    """
    level = 1 - (1 - confidence_level) / max(len(pairs), 1)
    found = [test(groups[i], groups[j], level) for i, j in pairs]
    adjusted = holm([one.p_value for one in found])
    return [
        dataclasses.replace(one, p_value=float(p))
        for one, p in zip(found, adjusted, strict=True)
    ]


def best_group(
    groups: Sequence[ArrayLike] | np.ndarray,
    test: Test,
    *,
    lower_is_better: bool = False,
    level: float = 0.05,
) -> int | None:
    """Returns the group that is better than every other one, if there is one.

    All pairs are tested, with Holm's correction: if no group is better than another,
    the chance of any answer is at most `level`.

    Args:
        groups: G groups of scores, as the test takes them.
        test: `paired_difference` or `welch_difference`.
        lower_is_better: Of the score, such as a distance.
        level: Of significance.
    """
    pairs = list(itertools.combinations(range(len(groups)), 2))
    found = corrected_differences(groups, pairs, test)
    sign = -1 if lower_is_better else 1
    wins = [0] * len(groups)
    for (i, j), one in zip(pairs, found, strict=True):
        if one.p_value < level:
            wins[i if sign * one.value > 0 else j] += 1
    best = [i for i, count in enumerate(wins) if count == len(groups) - 1]
    return best[0] if best and pairs else None


def _unknown(value: float, n: int) -> Difference:
    nan = math.nan
    return Difference(value=value, low=nan, high=nan, p_value=nan, n=n)


def _with_error(
    value: float, error: float, half: float, freedom: float, *, scale: float, n: int
) -> Difference:
    import scipy.stats

    least = 1e-12 * scale  # What is smaller is rounding.
    if error <= least:
        value = 0.0 if abs(value) <= least else value
        p, half = float(value == 0), 0.0
    else:
        p = 2 * float(scipy.stats.t.sf(abs(value) / error, freedom))
    return Difference(value=value, low=value - half, high=value + half, p_value=p, n=n)
