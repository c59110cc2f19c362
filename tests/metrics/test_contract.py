"""Properties of every metric of logits; a new metric is one line."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import metrics
from tests.metrics import scenes

NAMES = scenes.NAMES
OBJECTS = (
    metrics.Matching.from_batch,
    metrics.Panoptic.from_objects,
    metrics.AggregatedJaccard.from_batch,
    metrics.rand_scores,
    metrics.LesionDetection.from_batch,
    metrics.partition_scores,
    metrics.betti_scores,
)
METRICS = {
    "semantic": metrics.semantic(NAMES),
    "semantic_per_image": metrics.semantic_per_image(NAMES),
    "surface": metrics.surface(NAMES),
    "surface_spacing": metrics.surface(NAMES, tolerance=1.5, spacing=(0.5, 2.0)),
    "boundary_iou": metrics.boundary_iou(NAMES),
    "ranking": metrics.ranking(NAMES),
    "calibration": metrics.calibration(NAMES),
    "adaptive_calibration": metrics.adaptive_calibration(NAMES),
    "classwise_calibration": metrics.classwise_calibration(NAMES),
    "centerline_dice": metrics.centerline_dice(NAMES),
    "edges": metrics.edges(NAMES, thresholds=(0.2, 0.5, 0.8), max_distance=0.1),
    "objects": metrics.objects(*OBJECTS),
    "regions": metrics.regions(*OBJECTS),
    "best_threshold_rand": metrics.best_threshold_rand(),
    "combine": metrics.combine(
        metrics.semantic(NAMES), all=metrics.boundary_iou(NAMES)
    ),
}
COMPILED = {name: scenes.compiled(metric) for name, metric in METRICS.items()}
SCENES = 4  # Rows of every batch, so that each metric compiles once.


@pytest.fixture(params=METRICS)
def metric(request):
    return COMPILED[request.param]


def _scene(seed):
    rng = np.random.default_rng(seed)
    logits, batch = scenes.batch(rng, examples=SCENES, size=(11, 12))
    batch["label"][3] = 0  # An image without an object.
    batch["instances"] = metrics.connected_components(batch["label"] == 1)
    batch["valid"][2] = False  # An image that is all void.
    return logits, batch


def _padded(logits, batch, positions):
    """A fixed number of rows; those beyond the positions are garbage of weight 0."""
    positions = list(positions)
    rows = [*positions, *[(positions[0] + 1) % SCENES] * (SCENES - len(positions))]
    logits, batch = scenes.rows(logits, batch, rows)
    batch["weight"][len(positions) :] = 0
    batch["index"][len(positions) :] = -1
    return logits, batch


@settings(max_examples=8, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", METRICS)
def test_any_order_and_any_batching_is_the_same(name, data):
    scene = _scene(data.draw(st.integers(0, 2**32 - 1)))
    order = data.draw(st.permutations(range(SCENES)))
    parts, start = [], 0
    while start < SCENES:
        size = data.draw(st.integers(1, SCENES))
        parts.append(_padded(*scene, order[start : start + size]))
        start += size
    made = [COMPILED[name](*part) for part in parts]
    left = functools.reduce(lambda a, b: a.merge(b), made)
    right = functools.reduce(lambda a, b: b.merge(a), reversed(made))
    whole = COMPILED[name](*scene).compute()
    # Distances are float32 sums, whose order depends on the compiler.
    wanted = pytest.approx(whole, rel=1e-6, abs=1e-7, nan_ok=True)
    assert left.compute() == wanted
    assert left.compute() == pytest.approx(right.compute(), rel=1e-15, nan_ok=True)


def test_invalid_pixels_and_padding_are_ignored(metric):
    logits, batch = _scene(0)
    valid = batch["valid"]
    other = batch | {
        "label": np.where(valid, batch["label"], 1),
        "instances": np.where(valid, batch["instances"], 3),
    }
    turned = np.where(valid[..., None], logits, logits[..., ::-1])
    want = metric(logits, batch).compute()
    assert metric(turned, other).compute() == pytest.approx(want, nan_ok=True)


def test_nan_logits_are_nan(metric):
    logits, batch = _scene(0)
    whole = metric(logits, batch)
    logits = logits.copy()
    where = tuple(np.argwhere(batch["valid"])[0])
    for channel in range(len(NAMES)):
        broken = logits.copy()
        broken[(*where, channel)] = np.nan
        made = metric(broken, batch)
        for scores in (made.compute(), whole.merge(made).compute()):
            assert np.isnan(list(scores.values())).all()
    logits[~batch["valid"]] = np.nan  # Nobody looks there.
    want = whole.compute()
    assert metric(logits, batch).compute() == pytest.approx(want, nan_ok=True)


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_labels_out_of_range_are_refused(metric, wrong, request):
    name = request.node.callspec.params["metric"]
    if name in ("objects", "regions", "best_threshold_rand"):
        pytest.skip("knows one class, or ids")
    logits, batch = _scene(0)
    where = tuple(np.argwhere(batch["valid"])[0])
    label = batch["label"].copy()
    label[where] = wrong
    with pytest.raises(ValueError, match=r"class ids in \[0, C\).*others at 1 pixels"):
        metric(logits, {**batch, "label": label}).compute()
    with pytest.raises(ValueError, match=rf"label needs class ids.* got {wrong} at 1 "):
        METRICS[name](logits, {**batch, "label": label})


def test_nan_or_zero_counts_without_valid_pixels(metric):
    logits, batch = _scene(0)
    for name in ("valid", "weight"):
        scores = metric(logits, batch | {name: np.zeros_like(batch[name])}).compute()
        for key, value in scores.items():
            counted = key.split("@")[0] in ("tp", "fp", "fn")
            assert value == 0 if counted else np.isnan(value), key


def _one_side(predicted, true):
    """One image; class 1 fills a square in truth, in the prediction, or in both."""
    label = np.zeros((SCENES, 11, 12), np.int32)
    square = label.copy()
    square[:, 3:7, 2:9] = 1
    logits = 9 * np.eye(3, dtype=np.float32)[square if predicted else label]
    label = square if true else label
    return logits, {
        "label": label,
        "instances": label,
        "valid": np.ones_like(label, bool),
        "weight": np.eye(SCENES, dtype=np.float32)[0],
        "index": np.arange(SCENES, dtype=np.int32),
    }


DISTANCES = ("hd", "hd95", "assd")
OVERLAPS = (
    *("iou", "dice", "precision", "recall", "boundary_iou", "nsd", "boundary_f1"),
    *("cl_dice", "f1", "dsb2018_score", "pq", "sq", "rq", "aji"),
    *("volume_similarity", "lesion_f1", "lesion_precision", "lesion_recall"),
)


def _of_class_one(scores):
    """The overlap scores and distances of class 1, by score."""
    for key, value in scores.items():
        score, _, name = key.removeprefix("all_").partition("/")
        score = score.partition("@")[0].removesuffix("_per_image")
        if name in ("", "cat", "object") and score in (*OVERLAPS, *DISTANCES):
            yield score, value


@pytest.mark.parametrize(
    ("predicted", "true"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_empty_truth_or_prediction_scores_alike_in_all_metrics(metric, predicted, true):
    scores = metric(*_one_side(predicted, true)).compute()
    for score, value in _of_class_one(scores):
        if not predicted and not true:
            assert np.isnan(value), score
        elif score in DISTANCES:
            worst = (10**2 + 11**2) ** 0.5, (5**2 + 22**2) ** 0.5
            wanted = (0.0,) if predicted and true else worst
            assert any(value == pytest.approx(w) for w in wanted), score
        else:
            assert value == pytest.approx(float(predicted and true)), score


def test_every_metric_is_covered_by_the_test_above():
    without = {"ranking", "calibration", "best_threshold_rand"}
    without |= {"adaptive_calibration", "classwise_calibration", "edges"}
    for name, compiled in COMPILED.items():
        scores = compiled(*_one_side(True, True)).compute()
        assert bool(list(_of_class_one(scores))) == (name not in without), name
