import jax
import numpy as np
import pytest

from segjax import metrics
from tests.metrics import scenes

NAMES = scenes.NAMES


def test_data_set_scores_equal_confusion(rng):
    logits, batch = scenes.batch(rng)
    got = jax.jit(metrics.semantic_per_image(NAMES))(logits, batch).compute()
    want = metrics.semantic(NAMES)(logits, batch).compute()
    for key, value in want.items():
        assert got[key] == pytest.approx(value, nan_ok=True), key


def test_per_image_scores_are_means_of_single_images(rng):
    logits, batch = scenes.batch(rng)
    batch["label"][2] = 0  # An image with one class in truth.
    got = metrics.semantic_per_image(NAMES)(logits, batch)
    singles = [
        metrics.semantic(NAMES)(*scenes.rows(logits, batch, [i])).compute()
        for i in range(5)
    ]
    scores, per_image = got.compute(), got.per_image()
    for key in singles[0]:
        name, slash, label = key.partition("/")
        key = f"{name}_per_image{slash}{label}"
        want = np.array([s[name + slash + label] for s in singles])
        np.testing.assert_allclose(per_image[key], want, rtol=1e-12)
        assert scores[key] == pytest.approx(np.nanmean(want))
    assert len(singles[0]) * 2 == len(scores)


def test_padding_and_void_are_ignored(rng):
    logits, batch = scenes.batch(rng)
    batch["weight"][3:] = 0
    some = scenes.rows(logits, batch, [0, 1, 2])
    metric = metrics.semantic_per_image(NAMES)
    assert metric(logits, batch).compute() == metric(*some).compute()
    assert metric(logits, batch).num_images == 3
    other = dict(batch, label=np.where(batch["valid"], batch["label"], 1))
    assert metric(logits, other).compute() == metric(logits, batch).compute()


def test_absent_class_is_left_out_of_the_image():
    logits = np.zeros((2, 1, 2, 2), np.float32)
    logits[..., 0] = 1  # Predicts a everywhere.
    batch = {
        "label": np.array([[[0, 0]], [[0, 1]]], np.int32),
        "valid": np.ones((2, 1, 2), bool),
        "weight": np.ones(2, np.float32),
        "index": np.arange(2, dtype=np.int32),
    }
    scores = metrics.semantic_per_image(("a", "b"))(logits, batch).compute()
    assert scores["iou_per_image/b"] == 0  # In the second image only.
    assert scores["mean_iou_per_image"] == pytest.approx((1 + (1 / 2 + 0) / 2) / 2)
    assert scores["mean_iou"] == pytest.approx((3 / 4 + 0) / 2)


def test_take_repeats_images(rng):
    logits, batch = scenes.batch(rng)
    metric = metrics.semantic_per_image(NAMES)
    got = metric(logits, batch).take([4, 1, 1]).compute()
    want = metric(*scenes.rows(logits, batch, [1, 1, 4])).compute()
    assert got == pytest.approx(want, nan_ok=True)


def test_merge_rejects_other_metrics(rng):
    logits, batch = scenes.batch(rng)
    one = metrics.semantic_per_image(NAMES)(logits, batch)
    other = metrics.semantic_per_image(("a", "b", "c"))(logits, batch)
    with pytest.raises(ValueError, match="merge needs two ImageConfusion of"):
        one.merge(other)
    with pytest.raises(ValueError, match="got PerImage of"):
        one.merge(metrics.PerImage.from_batch({}, batch))
