"""Masks, labels and ids of any dtype give one score, or one line that names them."""

import numpy as np
import pytest

from segjax import metrics
from tests.metrics import scenes

MASKS = {"uint8": 1, "uint8 of 255": 255, "uint8 of 2": 2, "int32": 1}


def _as_integers(mask, name):
    return mask.astype(name.split()[0]) * np.dtype(name.split()[0]).type(MASKS[name])


@pytest.fixture
def masks(rng):
    a = rng.random((3, 12, 13)) < 0.4
    return a, np.roll(a, 1, axis=2) | (rng.random(a.shape) < 0.1)


@pytest.fixture
def ids(masks):
    return [metrics.connected_components(mask) for mask in masks]


@pytest.fixture
def rows():
    return {"index": np.arange(3), "weight": np.ones(3, np.float32)}


@pytest.mark.parametrize("name", MASKS)
def test_integer_masks_of_surfaces_are_masks(masks, name):
    want = metrics.surface_scores(*masks)
    got = metrics.surface_scores(*(_as_integers(x, name) for x in masks))
    assert {k: v.tolist() for k, v in got.items()} == {
        k: v.tolist() for k, v in want.items()
    }
    same = _as_integers(masks[0], name)
    assert metrics.surface_scores(same, same)["hd"].tolist() == [0, 0, 0]


OBJECTS = (
    metrics.Matching.from_batch,
    metrics.Panoptic.from_objects,
    metrics.AggregatedJaccard.from_batch,
    metrics.rand_scores,
    metrics.LesionDetection.from_batch,
    metrics.partition_scores,
    metrics.betti_scores,
)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("metric", OBJECTS)
def test_integer_valid_of_objects_is_a_mask(metric, name, ids, rows, rng):
    valid = rng.random(ids[0].shape) < 0.8
    want = metric(*ids, valid, rows).compute()
    got = metric(*ids, _as_integers(valid, name), rows).compute()
    assert got == pytest.approx(want, abs=0, nan_ok=True)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "metric",
    [
        *(metrics.semantic, metrics.semantic_per_image, metrics.surface),
        *(metrics.boundary_iou, metrics.calibration, metrics.ranking),
        metrics.centerline_dice,
        lambda _: metrics.regions(*OBJECTS),
        lambda _: metrics.best_threshold_rand(),
    ],
)
def test_integer_valid_of_logits_is_a_mask(metric, name, rng):
    logits, batch = scenes.batch(rng, examples=2)
    compiled = scenes.compiled(metric(scenes.NAMES))
    want = compiled(logits, batch).compute()
    batch["valid"] = _as_integers(batch["valid"], name)
    assert compiled(logits, batch).compute() == pytest.approx(want, abs=0, nan_ok=True)


def test_float_masks_are_refused(masks, rows, rng):
    a, b = masks
    with pytest.raises(ValueError, match=r"valid needs a mask of bool.*got float64"):
        metrics.rand_scores(a.astype(int), b.astype(int), a.astype(float), rows)
    logits, batch = scenes.batch(rng, examples=2)
    batch["valid"] = batch["valid"].astype(np.float32)
    with pytest.raises(ValueError, match=r"valid needs a mask of bool.*got float32"):
        metrics.semantic(scenes.NAMES)(logits, batch)


HUGE = (256**3 - 1, 2**31 + 5, 2**40)


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("metric", OBJECTS)
def test_huge_ids_count_as_small_ones(metric, huge, ids, rows):
    valid = np.ones(ids[0].shape, bool)
    want = metric(*ids, valid, rows).compute()
    # Far apart, so that a product or a sum of two of them overflows.
    far = [np.where(x > 0, huge * x.astype(np.int64), 0) for x in ids]
    assert metric(*far, valid, rows).compute() == pytest.approx(want, abs=0)
    perfect = metric(far[0], far[0], valid, rows).compute()
    for key in ("pq", "aji", "v_rand_per_image", "f1@0.50", "lesion_f1"):
        assert perfect.get(key, 1.0) == 1.0


def test_panoptic_of_24_bit_ids_of_classes(ids, rows):
    """COCO's segment ids are 24-bit colors, its category ids up to 200."""
    valid = np.ones(ids[0].shape, bool)
    names = tuple(f"c{i}" for i in range(3))
    classes = ids[0] % 3
    want = metrics.Panoptic.from_batch(
        (classes, ids[0]), (classes, ids[0]), valid, rows, classes=names
    ).compute()
    colors = ids[0].astype(np.uint32) * np.uint32(400_009)
    got = metrics.Panoptic.from_batch(
        (classes.astype(np.uint8), colors),
        (classes, colors),
        valid,
        rows,
        classes=names,
    ).compute()
    assert got == want
    assert got["pq"] == 1.0


@pytest.mark.parametrize("garbage", [-1, -(2**62), 2**62])
@pytest.mark.parametrize("metric", OBJECTS)
def test_true_ids_of_void_pixels_are_ignored(metric, garbage, ids, rows, rng):
    valid = rng.random(ids[0].shape) < 0.8
    want = metric(*ids, valid, rows).compute()
    truth = np.where(valid, ids[1], np.int64(garbage))
    assert metric(ids[0], truth, valid, rows).compute() == pytest.approx(want, abs=0)


def test_ids_below_zero_or_of_floats_are_refused(ids, rows, rng):
    valid = np.ones(ids[0].shape, bool)
    with pytest.raises(ValueError, match=r"truth needs ids of at least 0.*got -1"):
        metrics.Matching.from_batch(ids[0], ids[1] - 1, valid, rows)
    logits, batch = scenes.batch(rng, examples=3)
    batch["instances"] = batch["label"].astype(np.float64)
    metric = scenes.compiled(metrics.objects(metrics.Matching.from_batch))
    with pytest.raises(Exception, match=r"(?i)truth"):
        metric(logits, batch)


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_bins_are_counts(bins, rng, untyped):
    logits, batch = scenes.batch(rng, examples=1)
    for metric in (metrics.calibration, metrics.ranking):
        with pytest.raises(ValueError, match=rf"num_bins.* got {bins}"):
            metric(scenes.NAMES, num_bins=bins)(logits, batch)


def test_no_images_have_no_score(rng):
    logits, batch = scenes.batch(rng, examples=1)
    none = {k: v[:0] for k, v in batch.items()}
    for metric in (
        *(metrics.semantic, metrics.semantic_per_image, metrics.surface),
        *(metrics.boundary_iou, metrics.calibration, metrics.ranking),
    ):
        scores = metric(scenes.NAMES)(logits[:0], none).compute()
        assert np.isnan(list(scores.values())).all()
