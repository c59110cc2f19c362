import jax
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from segjax import metrics
from segjax.metrics.ranking import log_odds
from tests.metrics import scenes

NAMES = scenes.NAMES


def _odds(logits):
    """log p - log(1 - p) in float64, one class at a time."""
    logits = np.asarray(logits, np.float64)
    return np.stack(
        [
            logits[..., c]
            - scipy.special.logsumexp(np.delete(logits, c, axis=-1), axis=-1)
            for c in range(logits.shape[-1])
        ],
        axis=-1,
    )


def test_log_odds_are_accurate_at_both_ends(rng):
    logits = (rng.normal(size=(2, 5, 6, 4)) * 20).astype(np.float32)
    np.testing.assert_allclose(log_odds(logits), _odds(logits), rtol=2e-5, atol=2e-5)
    tied = np.zeros((1, 1, 1, 2), np.float32)
    np.testing.assert_allclose(log_odds(tied), 0 * tied, atol=1e-6)


def evenly_mixed(truth, bins):
    """Precision at each hit, one by one; a bin's misses spread evenly among its hits.

    Also the least and the greatest sum over orders within the bins.
    """
    sums, hits, misses = np.zeros(3), 0, 0
    for b in sorted(set(bins), reverse=True):
        p, n = (truth & (bins == b)).sum(), (~truth & (bins == b)).sum()
        for k in range(1, p + 1):
            for i, extra in enumerate((n, n * (k - 0.5) / p, 0)):
                sums[i] += (hits + k) / (hits + k + misses + extra)
        hits, misses = hits + p, misses + n
    return sums / truth.sum()


def test_equals_oracles_on_binned_scores(rng):
    logits, batch = scenes.batch(rng)
    got = jax.jit(metrics.ranking(NAMES, num_bins=64, limit=4.0))(logits, batch)
    scores, bound = got.compute(), got.bin_error()
    valid, odds = batch["valid"], np.asarray(log_odds(logits))
    for c, name in enumerate(NAMES):
        truth, score = batch["label"][valid] == c, odds[valid][:, c]
        bins = np.clip(np.floor((score + 4) * 8), 0, 63)
        auc = scores[f"auc_roc/{name}"]
        want = sklearn.metrics.roc_auc_score(truth, bins)
        assert auc == pytest.approx(want, abs=1e-12)
        gap = abs(auc - sklearn.metrics.roc_auc_score(truth, score))
        assert 0 < gap <= bound[f"auc_roc/{name}"] < 0.1
        ap = scores[f"pixel_average_precision/{name}"]
        worst, want, best = evenly_mixed(truth, bins)
        assert ap == pytest.approx(want, abs=1e-12)
        gap = bound[f"pixel_average_precision/{name}"]
        assert gap == pytest.approx(max(best - want, want - worst), abs=1e-12)
        exact = sklearn.metrics.average_precision_score(truth, score)
        assert 0 < abs(ap - exact) <= gap
    mean = np.mean([scores[f"auc_roc/{name}"] for name in NAMES])
    assert scores["mean_auc_roc"] == pytest.approx(mean)


def test_equals_sklearn_where_no_bin_is_shared(rng):
    # Each pixel in a bin of its own, so that nothing is lost.
    odds = rng.permutation(60).reshape(1, 6, 10) - 29.5
    logits = np.stack([0 * odds, odds], axis=-1).astype(np.float32)
    batch = {
        "label": rng.integers(0, 2, (1, 6, 10)).astype(np.int32),
        "valid": np.ones((1, 6, 10), bool),
        "weight": np.ones(1, np.float32),
    }
    got = jax.jit(metrics.ranking(("a", "b"), num_bins=64, limit=32.0))(logits, batch)
    scores, arguments = got.compute(), (batch["label"].ravel(), odds.ravel())
    want = sklearn.metrics.roc_auc_score(*arguments)
    assert scores["auc_roc/b"] == pytest.approx(want, abs=1e-12)
    want = sklearn.metrics.average_precision_score(*arguments)
    assert scores["pixel_average_precision/b"] == pytest.approx(want, abs=1e-12)
    assert max(got.bin_error().values()) == pytest.approx(0, abs=1e-12)


def test_the_default_bins_are_close(rng):
    logits, batch = scenes.batch(rng, examples=8, size=(40, 40))
    got = jax.jit(metrics.ranking(NAMES))(logits, batch)
    assert max(got.bin_error().values()) < 0.02
    valid = batch["valid"]
    truth, score = batch["label"][valid] == 1, logits[valid]
    score = scipy.special.softmax(score.astype(np.float64), axis=-1)[:, 1]
    scores = got.compute()
    want = sklearn.metrics.roc_auc_score(truth, score)
    assert scores["auc_roc/cat"] == pytest.approx(want, abs=1e-4)
    want = sklearn.metrics.average_precision_score(truth, score)
    assert scores["pixel_average_precision/cat"] == pytest.approx(want, abs=1e-3)


def test_bounds_are_reached_within_one_bin():
    # Two hits and three misses in one bin: best 1, worst (1/4 + 2/5) / 2.
    histogram = np.zeros((1, 2, 4), np.int64)
    histogram[0, :, 2] = 3, 2
    got = metrics.Ranking(histogram, ("a",))
    assert got.compute()["auc_roc/a"] == 0.5
    assert got.bin_error()["auc_roc/a"] == 0.5
    # Evenly mixed: 3/4 of a miss before the first hit, 9/4 before the second.
    mixed = (1 / (1 + 3 / 4) + 2 / (2 + 9 / 4)) / 2
    assert got.compute()["pixel_average_precision/a"] == pytest.approx(mixed)
    bound = max(1 - mixed, mixed - (1 / 4 + 2 / 5) / 2)
    assert got.bin_error()["pixel_average_precision/a"] == pytest.approx(bound)


def test_empty_sides(rng):
    logits, batch = scenes.batch(rng)
    batch["label"] = np.where(batch["label"] == 2, 0, batch["label"])
    metric = jax.jit(metrics.ranking(NAMES))
    scores = metric(logits, batch).compute()
    assert np.isnan(scores["auc_roc/dog"])
    assert np.isnan(scores["pixel_average_precision/dog"])
    assert np.isfinite(scores["mean_auc_roc"])
    batch["valid"] = np.zeros_like(batch["valid"])
    scores = metric(logits, batch).compute()
    assert np.isnan(list(scores.values())).all()


def test_messages(rng):
    with pytest.raises(ValueError, match="two classes or more, got 1"):
        metrics.ranking(["cat"])
    one = metrics.Ranking(np.zeros((1, 2, 8), int), ("a",))
    other = metrics.Ranking(np.zeros((1, 2, 9), int), ("a",))
    with pytest.raises(ValueError, match=r"in 8 and \('a',\) in 9"):
        one.merge(other)
