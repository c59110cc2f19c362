import itertools

import numpy as np
import pytest
import scipy.stats

from segjax import metrics

NAN = np.nan


def test_paired_equals_scipy(rng):
    a, b = rng.normal(size=(2, 7))
    b[2] = NAN
    got = metrics.paired_difference(a, b, 0.9)
    want = scipy.stats.ttest_rel(a, b, nan_policy="omit")
    interval = want.confidence_interval(0.9)
    assert got.p_value == pytest.approx(want.pvalue)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.value == pytest.approx(np.nanmean(a - b))
    assert got.n == 6


def test_welch_equals_scipy(rng):
    a, b = rng.normal(size=5), rng.normal(scale=4, size=9)
    got = metrics.welch_difference(a, [*b, NAN], 0.8)
    want = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = want.confidence_interval(0.8)
    assert got.p_value == pytest.approx(want.pvalue)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("test", [metrics.paired_difference, metrics.welch_difference])
def test_equal_groups_do_not_differ(test):
    same = test([0.7, 0.7, 0.7], [0.7, 0.7, 0.7])
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    shifted = test([0.7, 0.7], [0.6, 0.6])
    assert shifted.p_value == 0
    assert shifted.low == shifted.high == pytest.approx(0.1)
    alone = test([0.7], [0.6])
    assert alone.value == pytest.approx(0.1)
    assert np.isnan([alone.low, alone.high, alone.p_value]).all()


def test_corrected_by_hand():
    groups = [[1.0, 2.0, 3.0], [2.0, 2.0, 4.5], [5.0, 7.0, 9.0]]
    pairs = [(1, 0), (2, 0)]
    got = metrics.corrected_differences(groups, pairs, metrics.paired_difference)
    p = [scipy.stats.ttest_rel(groups[i], groups[0]).pvalue for i in (1, 2)]
    assert p[1] < p[0]
    assert got[1].p_value == pytest.approx(2 * p[1])
    assert got[0].p_value == pytest.approx(max(p[0], 2 * p[1]))
    interval = scipy.stats.ttest_rel(groups[2], groups[0]).confidence_interval(0.975)
    assert (got[1].low, got[1].high) == pytest.approx((interval.low, interval.high))


def test_an_interval_without_0_has_a_small_p(rng):
    for _ in range(200):
        groups = rng.normal(rng.normal(size=(4, 1)), 0.5, size=(4, 3))
        pairs = list(itertools.combinations(range(4), 2))
        for one in metrics.corrected_differences(
            groups, pairs, metrics.paired_difference
        ):
            assert one.p_value < 0.05 or one.low <= 0 <= one.high


@pytest.mark.parametrize("test", [metrics.paired_difference, metrics.welch_difference])
def test_best_of_equal_groups_is_rare(test, rng):
    # 5 % at most; 600 simulations have a standard error of 0.9 %.
    found = [
        metrics.best_group(rng.normal(size=(4, 5)), test) is not None
        for _ in range(600)
    ]
    assert np.mean(found) <= 0.05 + 2 * 0.009


def test_best_group(rng):
    groups = rng.normal([[0.0], [3.0], [-3.0]], 0.2, size=(3, 5))
    test = metrics.welch_difference
    assert metrics.best_group(groups, test) == 1
    assert metrics.best_group(groups, test, lower_is_better=True) == 2
    assert metrics.best_group(groups[[0, 1, 1]], test) is None
    assert metrics.best_group(groups[:1], test) is None


def test_pairs_are_needed():
    with pytest.raises(ValueError, match=r"needs pairs, got \(2,\) and \(3,\)"):
        metrics.paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
