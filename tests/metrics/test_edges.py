import itertools

import numpy as np
import pytest
import scipy.special
from scipy.spatial.distance import cdist
from skimage.morphology import thin

from segjax import metrics
from tests.metrics import scenes

NAMES = ("ground", "edge")


def _most_pairs(predicted, truth, limit):
    """Over all assignments of the smaller side to the larger one."""
    near = cdist(np.argwhere(predicted), np.argwhere(truth)) <= limit
    near = near if len(near) <= len(near.T) else near.T
    few, many = near.shape
    choices = itertools.permutations(range(many), few)
    return max(sum(near[i, j] for i, j in enumerate(c)) for c in choices)


def test_matching_equals_all_assignments(rng):
    for _ in range(20):
        masks = np.zeros((2, 5, 5), bool)
        for mask, count in zip(masks, rng.integers(1, 7, 2), strict=True):
            mask.flat[rng.choice(25, count, replace=False)] = True
        limit = rng.choice([0.0, 1.0, np.sqrt(2), 2.3])
        got = metrics.match_edges(*masks, max_distance=limit)
        assert got == _most_pairs(*masks, limit)
    assert metrics.match_edges(masks[0], 0 * masks[0], max_distance=9.0) == 0


def test_equals_the_definition(rng):
    logits, batch = scenes.batch(rng, examples=4, size=(20, 23), num_classes=2)
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    metric = metrics.edges(NAMES, thresholds=levels, max_distance=0.05)
    made = metric(2 * logits, batch)
    probs = scipy.special.softmax(2 * logits, axis=-1)[..., 1]
    limit = 0.05 * np.hypot(20, 23)
    table = np.zeros((4, len(levels), 3))  # Matched, predicted, true.
    for i, k in np.ndindex(table.shape[:2]):
        valid = batch["valid"][i]
        line = thin((batch["label"][i] == 1) & valid)
        found = thin((probs[i] >= levels[k]) & valid)
        pairs = metrics.match_edges(found, line, max_distance=limit)
        table[i, k] = pairs, found.sum(), line.sum()

    def f(row):
        precision, recall = row[..., 0] / row[..., 1], row[..., 0] / row[..., 2]
        return 2 * precision * recall / (precision + recall)

    scores, single = made.compute(), f(table)
    assert scores["edge_ods"] == pytest.approx(f(table.sum(0)).max())
    best = levels[int(f(table.sum(0)).argmax())]
    assert scores["edge_ods_threshold"] == best
    own = table[np.arange(4), single.argmax(1)]
    assert scores["edge_ois"] == pytest.approx(f(own.sum(0)))
    np.testing.assert_allclose(made.made.per_image()["edge_f_per_image"], single.max(1))


def _one_image(label, probs):
    logits = np.log(np.stack([1 - probs, probs], -1)).astype(np.float32)[None]
    return logits, {
        "label": label[None].astype(np.int32),
        "valid": np.ones((1, *label.shape), bool),
        "weight": np.ones(1, np.float32),
        "index": np.zeros(1, np.int32),
    }


def test_one_pixel_off_is_a_hit_within_the_distance():
    line = np.zeros((9, 40), bool)
    line[4, 2:38] = True
    for shift, fraction, want in ((1, 0.03, 1.0), (2, 0.03, 0.0), (2, 0.06, 1.0)):
        probs = np.where(np.roll(line, shift, 0), 0.9, 0.1)
        metric = metrics.edges(NAMES, thresholds=(0.5,), max_distance=fraction)
        scores = metric(*_one_image(line, probs)).compute()
        assert scores["edge_ods"] == scores["edge_ois"] == want


def test_an_image_without_an_edge_is_best_where_none_is_predicted():
    empty = np.zeros((6, 8), bool)
    probs = np.where(np.eye(6, 8) > 0, 0.6, 0.1)
    metric = metrics.edges(NAMES, thresholds=(0.3, 0.9), max_distance=0.1)
    bad = metric(*_one_image(empty, probs))
    line = empty.copy()
    line[3] = True
    good = metric(*_one_image(line, np.where(line, 0.6, 0.1)))
    good.made.rows.index[:] = 1
    scores = bad.merge(good).compute()
    assert scores["edge_ois"] == 1.0  # The second image at 0.3, the first one at 0.9.
    assert scores["edge_ods"] < 1
    assert bad.compute()["edge_ods"] == 0.0


def test_messages():
    with pytest.raises(ValueError, match="edges needs thresholds, got none"):
        metrics.edges(NAMES, thresholds=())
    with pytest.raises(ValueError, match=r"finite thresholds in \(0, 1\], got 0"):
        metrics.edges(NAMES, thresholds=(0.0, 0.5))
