import numpy as np
import pytest

from segjax import metrics
from tests.metrics import scenes

BATCH = {"index": np.arange(3), "weight": np.ones(3)}


def ids(rng):
    truth = metrics.connected_components(scenes.blobs(rng, (3, 30, 31), smooth=1.2))
    other = metrics.connected_components(scenes.blobs(rng, (3, 30, 31), smooth=1.2))
    mixed = np.where(np.arange(31) < 15, truth, other + 100)
    return mixed, truth, rng.random(truth.shape) < 0.9


@pytest.mark.parametrize("min_pixels", [1, 5])
def test_equals_a_loop_over_masks(min_pixels, rng):
    predicted, truth, valid = ids(rng)
    counts = np.zeros(4)
    for p, t, v in zip(predicted, truth, valid, strict=True):
        p, t = p[v], t[v]
        lesions = [t == i for i in np.unique(t[t > 0])]
        shapes = [p == i for i in np.unique(p[p > 0])]
        counts += [
            sum((x & (p > 0)).sum() >= min_pixels for x in lesions),
            len(lesions),
            sum((x & (t > 0)).sum() >= min_pixels for x in shapes),
            len(shapes),
        ]
    made = metrics.LesionDetection.from_batch(
        predicted, truth, valid, BATCH, min_pixels=min_pixels
    )
    recall, precision = counts[0] / counts[1], counts[2] / counts[3]
    scores = made.compute()
    assert scores["lesion_recall"] == pytest.approx(recall)
    assert scores["lesion_precision"] == pytest.approx(precision)
    f1 = 2 * recall * precision / (recall + precision)
    assert scores["lesion_f1"] == pytest.approx(f1)
    assert 0.2 < f1 < 0.99


def test_one_prediction_may_find_two_lesions():
    truth = np.zeros((1, 4, 7), np.int32)
    truth[0, 1, 1], truth[0, 1, 5] = 1, 2
    predicted = np.zeros_like(truth)
    predicted[0, 1, 1:6], predicted[0, 3, 3] = 1, 2
    row = {"index": np.zeros(1), "weight": np.ones(1)}
    made = metrics.LesionDetection.from_batch(
        predicted, truth, np.ones(truth.shape, bool), row
    )
    scores = made.compute()
    assert (scores["lesion_recall"], scores["lesion_precision"]) == (1, 0.5)
    with pytest.raises(ValueError, match="min_pixels of at least 1, got 0"):
        metrics.LesionDetection.from_batch(
            predicted, truth, np.ones(truth.shape, bool), row, min_pixels=0
        )
