import functools

import jax
import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics

from segjax import metrics
from segjax.metrics.contingency import contingency
from segjax.metrics.matching import THRESHOLDS
from tests.metrics import scenes

ROW = {"index": np.zeros(1, np.int32), "weight": np.ones(1, np.float32)}


def objects(rng, count=8, size=(30, 34)):
    """Predicted and true ids that overlap at all IoUs; some sides are empty."""
    truth = metrics.connected_components(scenes.blobs(rng, (count, *size), smooth=1.6))
    moved = np.roll(truth, rng.integers(-1, 2, 2), (1, 2))
    predicted = np.where(rng.random((count, *size)) < 0.05, 0, moved)
    predicted[predicted % 5 == 4] = 0  # Missed.
    predicted[predicted % 7 == 3] += 1  # Merged with the next object.
    made_up = metrics.connected_components(
        scenes.blobs(rng, (count, *size), smooth=0.8)
    )
    predicted = np.where((predicted == 0) & (truth == 0), made_up + 500, predicted)
    predicted[predicted == 500] = 0
    truth[0], predicted[1] = 0, 0
    truth[2], predicted[2] = 0, 0
    predicted[3] = truth[3]
    valid = rng.random(truth.shape) < 0.95
    return predicted.astype(np.int32), truth, valid


def ious(predicted, truth, valid):
    """IoU of each true object (rows) with each predicted one, by masks."""
    predicted, truth = (np.where(valid, x, 0) for x in (predicted, truth))
    p_ids, t_ids = (np.unique(x[x > 0]) for x in (predicted, truth))
    table = np.zeros((len(t_ids), len(p_ids)))
    for i, t in enumerate(t_ids):
        for j, p in enumerate(p_ids):
            a, b = truth == t, predicted == p
            table[i, j] = (a & b).sum() / (a | b).sum()
    return table


def test_contingency_counts_pixels(rng):
    for image in zip(*objects(rng), strict=True):
        table = contingency(*image)
        predicted, truth, valid = image
        for t, p, n in zip(table.truth, table.predicted, table.pixels, strict=True):
            assert n == ((truth == t) & (predicted == p) & valid).sum()
        assert table.pixels.sum() == valid.sum()
        for t, n in table.truth_sizes.items():
            assert n == ((truth == t) & valid).sum()


def test_matching_equals_masks_at_all_thresholds(rng):
    predicted, truth, valid = objects(rng)
    batch = {"index": np.arange(8), "weight": np.ones(8)}
    got = metrics.Matching.from_batch(predicted, truth, valid, batch)
    tables = [ious(*image) for image in zip(predicted, truth, valid, strict=True)]
    sums, scores = np.zeros((3, 10)), []
    for table in tables:
        tp = np.array([(table > t).sum() for t in THRESHOLDS])
        fn, fp = (n - tp for n in table.shape)
        sums += tp, fp, fn
        some = tp + fp + fn
        scores.append(np.where(some > 0, tp / np.maximum(some, 1), np.nan).mean())
    found, (tp, fp, fn) = got.table(), sums
    assert tp[0] > 10
    assert 0 < tp[-1] < tp[0]
    for name, want in (
        ("tp", tp),
        ("fp", fp),
        ("fn", fn),
        ("precision", tp / (tp + fp)),
        ("recall", tp / (tp + fn)),
        ("f1", 2 * tp / (2 * tp + fp + fn)),
        ("dsb2018_score", tp / (tp + fp + fn)),
    ):
        np.testing.assert_allclose(found[name], want, rtol=1e-12)
    found = got.compute()
    assert found["tp@0.50"] == tp[0]
    assert found["recall@0.75"] == pytest.approx(tp[5] / (tp[5] + fn[5]))
    assert found["mean_dsb2018_score"] == pytest.approx((tp / sums.sum(0)).mean())
    want = np.array(scores)
    assert np.isnan(want).sum() == 1  # Neither has objects.
    assert want[:2].tolist() == [0, 0]  # Only one has objects.
    per_image = got.per_image()["mean_dsb2018_score_per_image"]
    np.testing.assert_allclose(per_image, want, rtol=1e-12)
    mean = found["mean_dsb2018_score_per_image"]
    assert mean == pytest.approx(np.nanmean(want))


def test_an_iou_at_the_threshold_is_not_above_it():
    # 11 of 20 pixels are shared: IoU 0.55, above 0.50 only.
    truth, predicted = np.ones((1, 1, 20), np.int32), np.ones((1, 1, 20), np.int32)
    predicted[..., 11:] = 0
    valid = np.ones_like(truth, bool)
    got = metrics.Matching.from_batch(predicted, truth, valid, ROW).table()
    assert got["tp"].tolist() == [1] + [0] * 9


def aggregated_jaccard(predicted, truth, valid):
    """Algorithm 1 of Kumar et al. on masks."""
    predicted, truth = (np.where(valid, x, 0) for x in (predicted, truth))
    p_ids = np.unique(predicted[predicted > 0])
    hit = union = 0
    matched = set()
    for t in np.unique(truth[truth > 0]):
        a, best = truth == t, (0.0, None)
        for p in p_ids:
            b = predicted == p
            score = (a & b).sum() / (a | b).sum()
            if score > best[0]:
                best = score, p
        if best[1] is None:
            union += a.sum()
            continue
        b = predicted == best[1]
        hit, union = hit + (a & b).sum(), union + (a | b).sum()
        matched.add(best[1])
    union += sum((predicted == p).sum() for p in p_ids if p not in matched)
    return hit, union


def test_aggregated_jaccard_equals_the_papers_algorithm(rng):
    predicted, truth, valid = objects(rng)
    batch = {"index": np.arange(8), "weight": np.ones(8)}
    got = metrics.AggregatedJaccard.from_batch(predicted, truth, valid, batch)
    images = zip(predicted, truth, valid, strict=True)
    sums = np.array([aggregated_jaccard(*image) for image in images], float)
    assert got.compute()["aji"] == pytest.approx(sums[:, 0].sum() / sums[:, 1].sum())
    with np.errstate(invalid="ignore"):
        want = sums[:, 0] / sums[:, 1]
    np.testing.assert_allclose(got.per_image()["aji_per_image"], want, rtol=1e-12)
    assert want[:2].tolist() == [0, 0]
    assert np.isnan(want[2])
    assert want[3] == 1


def rand_f_score(predicted, truth, valid):
    """Pair counts of the paper from a dense table; unpredicted ones are singletons."""
    inside = valid & (truth > 0)
    s, t = predicted[inside].astype(np.int64), truth[inside]
    s = np.where(s == 0, 10_000 + np.arange(s.size), s)
    n = s.size
    p = np.zeros((len(np.unique(t)), len(np.unique(s))))
    np.add.at(
        p, tuple(np.unique(x, return_inverse=True)[1] for x in (t, s)), 1 / max(n, 1)
    )
    both, t2, s2 = (p**2).sum(), (p.sum(1) ** 2).sum(), (p.sum(0) ** 2).sum()
    return (both / (0.5 * s2 + 0.5 * t2), both / t2, both / s2) if n else [np.nan] * 3


def test_v_rand_equals_the_papers_formula(rng):
    predicted, truth, valid = objects(rng)
    batch = {"index": np.arange(8), "weight": np.ones(8)}
    got = metrics.rand_scores(predicted, truth, valid, batch)
    images = zip(predicted, truth, valid, strict=True)
    want = np.array([rand_f_score(*image) for image in images])
    names = ("v_rand_per_image", "v_rand_split_per_image", "v_rand_merge_per_image")
    for i, name in enumerate(names):
        np.testing.assert_allclose(got.per_image()[name], want[:, i], rtol=1e-12)
    assert np.isnan(want[[0, 2]]).all()
    assert want[3, 0] == pytest.approx(1)
    assert got.compute()["v_rand_per_image"] == pytest.approx(np.nanmean(want[:, 0]))


def test_v_rand_is_near_scikit_image_where_all_is_predicted(rng):
    # scikit-image counts pairs of distinct pixels, and background as one object.
    truth = metrics.connected_components(scenes.blobs(rng, (1, 60, 60)))[0]
    predicted = np.roll(truth, 2) + 1
    got = metrics.v_rand(predicted, truth, np.ones_like(truth, bool))
    # scikit-image's "precision" divides by sizes in truth, as the split score does.
    error, split, merge = skimage.metrics.adapted_rand_error(truth, predicted)
    assert got["v_rand"] == pytest.approx(1 - error, abs=5e-3)
    assert got["v_rand_merge"] == pytest.approx(merge, abs=5e-3)
    assert got["v_rand_split"] == pytest.approx(split, abs=5e-3)


def test_the_best_threshold_is_that_of_the_mean(rng):
    logits, batch = scenes.batch(rng, size=(20, 22), num_classes=2)
    thresholds = (0.3, 0.5, 0.7)
    metric = scenes.compiled(metrics.best_threshold_rand(thresholds=thresholds))
    found = metric(logits, batch).compute()
    valid = batch["valid"]
    truth = metrics.connected_components((batch["label"] == 1) & valid)
    probs = jax.nn.softmax(logits)[..., 1]
    means = []
    for threshold in thresholds:
        predicted = metrics.connected_components(np.asarray(probs > threshold) & valid)
        scores = metrics.rand_scores(predicted, truth, valid, batch).compute()
        means.append(scores["v_rand_per_image"])
    best = int(np.argmax(means))
    assert len(set(means)) == 3
    assert found["best_v_rand_per_image"] == pytest.approx(means[best])
    assert found["best_v_rand_threshold"] == thresholds[best]


def test_connected_components_connectivity():
    mask = np.array([[[1, 0, 1], [0, 1, 0]]], bool)
    assert metrics.connected_components(mask).max() == 3
    assert metrics.connected_components(mask, connectivity=2).max() == 1
    noise = np.random.default_rng(0).random((2, 20, 20)) < 0.5
    for got, one in zip(metrics.connected_components(noise), noise, strict=True):
        np.testing.assert_array_equal(got, scipy.ndimage.label(one)[0])


MAKES = (
    metrics.Matching.from_batch,
    metrics.Panoptic.from_objects,
    metrics.AggregatedJaccard.from_batch,
    metrics.rand_scores,
)


def test_objects_inside_a_compiled_evaluation(rng):
    logits, batch = scenes.batch(rng, size=(24, 25), num_classes=2)
    truth = metrics.connected_components(batch["label"] == 1)
    batch["instances"] = np.where(batch["valid"], truth, 9999)
    batch["weight"][4] = 0
    metric = scenes.compiled(metrics.objects(*MAKES))
    parts = [metric(*scenes.rows(logits, batch, [i, i + 1])) for i in (0, 3)]
    parts = [*parts, metric(*scenes.rows(logits, batch, [2]))]
    found = functools.reduce(lambda a, b: a.merge(b), parts).compute()
    valid = batch["valid"][:4]
    predicted = metrics.connected_components((logits[:4].argmax(-1) == 1) & valid)
    rows = {k: batch[k][:4] for k in ("index", "weight")}
    want = {}
    for make in MAKES:
        want |= make(predicted, truth[:4], valid, rows).compute()
    assert found == pytest.approx(want, nan_ok=True)
    again = scenes.compiled(metrics.regions(*MAKES))(logits, batch).compute()
    truth = metrics.connected_components((batch["label"] == 1) & batch["valid"])[:4]
    want = metrics.Matching.from_batch(predicted, truth, valid, rows).compute()
    assert {k: again[k] for k in want} == pytest.approx(want, nan_ok=True)


def test_messages(rng):
    logits, batch = scenes.batch(rng, num_classes=2)
    with pytest.raises(ValueError, match="needs a batch with instances, got label,"):
        metrics.objects(*MAKES)(logits, batch)
    with pytest.raises(ValueError, match="at least one metric, got none"):
        metrics.regions()


def test_id_maps_of_different_sizes_equal_one_batch(rng):
    predicted, truth, _ = objects(rng)
    batch = {"index": np.arange(8), "weight": np.ones(8, np.float32)}
    for metric in (metrics.Matching.from_batch, metrics.Panoptic.from_objects):
        want = metric(predicted, truth, np.ones(truth.shape, bool), batch).compute()
        # A part without objects may be cut off.
        a, b = (list(np.pad(x, ((0, 0), (0, 5), (0, 0)))) for x in (predicted, truth))
        a[3:], b[3:] = (x[3:].astype(np.uint16) for x in (predicted, truth))
        assert metrics.of_id_maps(metric, a, b).compute() == pytest.approx(want)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([], [], "0 predicted and 0 true"),
        ([np.zeros((2, 2), int)], [], "1 predicted and 0 true"),
        ([np.zeros((2, 2), int)], [np.zeros((2, 3), int)], r"\[2, 2\] and \[2, 3\]"),
        ([np.zeros(2, int)], [np.zeros(2, int)], r"\[H, W\], got \[2\]"),
    ],
)
def test_id_maps_that_do_not_fit(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        metrics.of_id_maps(metrics.Matching.from_batch, predicted, truth)
