import itertools

import numpy as np
import pytest
import scipy.stats

from segjax import metrics
from segjax.metrics import statistics
from tests.metrics import scenes


def test_mean_interval_equals_scipy(rng):
    values = rng.beta(8, 2, 40)
    with_gaps = np.insert(values, [3, 20], np.nan)
    got = statistics.mean_interval(with_gaps, confidence_level=0.9)
    want = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (got.low, got.high) == pytest.approx((want.low, want.high))
    assert got.value == pytest.approx(values.mean())
    assert got.n == 40
    assert str(got).endswith("], n = 40")


@pytest.mark.parametrize("seeds", [2, 3, 5, 53])
def test_mean_interval_has_its_confidence_level(rng, seeds):
    found = [statistics.mean_interval(x) for x in rng.normal(size=(2000, seeds))]
    held = np.mean([x.low <= 0 <= x.high for x in found])
    assert 0.93 <= held <= 0.97


def test_mean_interval_of_few_values():
    none = statistics.mean_interval([np.nan])
    assert np.isnan([none.value, none.low, none.high]).all()
    assert none.n == 0
    one = statistics.mean_interval([0.5, np.nan])
    assert one.value == 0.5
    assert np.isnan([one.low, one.high]).all()
    same = statistics.mean_interval([0.5, 0.5, 0.5])
    assert (same.value, same.low, same.high) == (0.5, 0.5, 0.5)
    assert (one.n, same.n) == (1, 3)


def test_metric_intervals_resample_images(rng):
    logits, batch = scenes.batch(rng, examples=12)
    metric = metrics.semantic_per_image(scenes.NAMES)(logits, batch)
    got = metrics.metric_intervals(metric, num_resamples=300, seed=1)
    assert got.keys() == metric.compute().keys()
    draws = np.random.default_rng(1).integers(0, 12, (300, 12))
    overlap = {k: np.asarray(v) for k, v in metric.rows.values.items()}
    ious = []
    for draw in draws:
        hit, truth, predicted = (
            overlap[k][draw].sum(0) for k in ("intersection", "truth", "predicted")
        )
        ious.append((hit / (truth + predicted - hit)).mean())
    low, high = np.percentile(ious, [2.5, 97.5])
    found = got["mean_iou"]
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low < found.value < found.high
    assert {x.n for x in got.values()} == {12}
    (one,) = {
        (x.low, x.high, x.n)
        for k, x in metrics.metric_intervals(metric.take([3]), num_resamples=5).items()
        if k == "mean_iou"
    }
    assert np.isnan(one[:2]).all()
    assert one[2] == 1
    # The interval of a mean over images is close to that of `mean_interval`.
    values = metric.per_image()["mean_iou_per_image"]
    other, mean = statistics.mean_interval(values), got["mean_iou_per_image"]
    assert (mean.low, mean.high) == pytest.approx((other.low, other.high), abs=0.02)


@pytest.mark.slow
def test_metric_differences_resample_the_same_images(rng):
    logits, batch = scenes.batch(rng, examples=10)
    metric = metrics.semantic_per_image(scenes.NAMES)
    better = logits + 0.4 * np.eye(3, dtype=np.float32)[batch["label"] % 3]
    a, b = metric(better, batch), metric(logits, batch)
    got = metrics.metric_differences(a, b, num_resamples=200)
    assert got.keys() == a.compute().keys()
    found = got["mean_iou"]
    assert found.value == a.compute()["mean_iou"] - b.compute()["mean_iou"]
    assert 0 < found.low < found.value < found.high
    # Unpaired, the same difference is much less certain.
    alone = [metrics.metric_intervals(x, num_resamples=200)["mean_iou"] for x in (a, b)]
    assert found.high - found.low < 0.7 * sum(x.high - x.low for x in alone)
    same = metrics.metric_differences(a, a, num_resamples=20)
    assert all((x.low, x.high) == (0, 0) for x in same.values() if x.value == 0)
    with pytest.raises(ValueError, match="same images, got 10 and 9"):
        metrics.metric_differences(a, b.take(range(9)))


def test_compare_equals_all_sign_patterns():
    a, b = np.array([0.8, 0.7, 0.9, 0.6, 0.75]), np.array([0.7, 0.72, 0.8, 0.5, 0.7])
    got = statistics.compare(a, b)
    sums = [np.dot(s, a - b) for s in itertools.product([1, -1], repeat=5)]
    want = np.mean(np.abs(sums) >= (a - b).sum() - 1e-9)
    assert got.p_value == want == 4 / 32
    assert got.difference == pytest.approx((a - b).mean())
    assert (got.pairs, got.min_p_value) == (5, 2 / 32)
    scipys = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples"
    )
    assert got.p_value == pytest.approx(scipys.pvalue)
    assert str(got).endswith("p = 0.12 over 5 pairs")


def test_compare_many_pairs_is_near_the_t_test(rng):
    b = rng.normal(size=80)
    a = b + rng.normal(0.1, 0.5, size=80)
    a[7] = np.nan
    got = statistics.compare(a, b)
    kept = ~np.isnan(a)
    want = scipy.stats.ttest_rel(a[kept], b[kept])
    assert got.pairs == 79
    assert got.p_value == pytest.approx(want.pvalue, abs=0.02)
    low, high = want.confidence_interval()
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.03)
    mirrored = statistics.compare(b, a)
    assert mirrored.difference == pytest.approx(-got.difference)
    assert mirrored.p_value == got.p_value


def test_compare_has_few_false_positives(rng):
    found = [
        statistics.compare(*rng.normal(size=(2, 10)), num_resamples=99).p_value
        for _ in range(300)
    ]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09


def test_three_seeds_cannot_show_a_difference():
    got = statistics.compare([0.9, 0.9, 0.9], [0.1, 0.2, 0.1])
    assert got.p_value == got.min_p_value == 0.25


def test_p_value_is_never_zero():
    got = statistics.compare(np.arange(1.0, 41), np.zeros(40), num_resamples=199)
    assert got.p_value == got.min_p_value == 1 / 200


def test_compare_without_pairs():
    got = statistics.compare([np.nan, 1.0], [1.0, np.nan])
    assert got.pairs == 0
    assert np.isnan([got.difference, got.p_value, got.min_p_value]).all()
    same = statistics.compare([0.5, 0.6], [0.5, 0.6])
    assert (same.difference, same.p_value) == (0, 1)


def test_messages():
    with pytest.raises(ValueError, match="needs pairs, got 2 and 3 scores"):
        statistics.compare([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"got shape \(1, 2\)"):
        statistics.mean_interval([[1, 2]])
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        statistics.mean_interval([1, 2], confidence_level=95.0)
    empty = metrics.PerImage.from_batch({}, {"index": np.zeros(0), "weight": []})
    with pytest.raises(ValueError, match="at least one image"):
        metrics.metric_intervals(empty)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04, times 4 3 2 1, then the running maximum.
    got = metrics.holm([0.04, 0.01, np.nan, 0.03, 0.02])
    np.testing.assert_allclose(got, [0.06, 0.04, np.nan, 0.06, 0.06])
    assert metrics.holm([]).shape == (0,)
    assert metrics.holm([0.7, 0.9]).tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"p_values needs numbers in \[0, 1\], got 2"):
        metrics.holm([0.5, 2.0])


def test_holm_rejects_what_the_step_down_procedure_rejects(rng):
    for _ in range(200):
        p = rng.random(6) ** 3
        level = rng.uniform(0.01, 0.3)
        rejected = np.zeros(6, bool)
        for i, place in enumerate(np.argsort(p)):
            if p[place] > level / (6 - i):
                break
            rejected[place] = True
        np.testing.assert_array_equal(metrics.holm(p) <= level, rejected)
