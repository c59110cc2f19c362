"""The scores of each image, for metrics of the device and of the host."""

import csv
import math

import jax
import numpy as np
import pytest

from segjax import losses, metrics, models
from segjax.cli import evaluate_images
from tests.metrics import test_detections as detections

CLASSES = ("background", "square", "bar")
METRICS = {
    "device": metrics.semantic(CLASSES),
    "host": metrics.regions(metrics.Matching.from_batch),
    "both": metrics.combine(
        metrics.semantic_per_image(CLASSES),
        r=metrics.regions(metrics.Matching.from_batch),
    ),
}


def batch_of(rows, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (rows, 8, 8)).astype(np.int32)
    return {
        "label": label.repeat(2, 1).repeat(2, 2),
        "valid": rng.random((rows, 16, 16)) < 0.9,
        "weight": np.array([1] * (rows - 1) + [0], np.float32),
        "index": np.array([7, 3, 5, 0, -1][-rows:], np.int32),
        "size": np.full((rows, 2), 16, np.int32),
    }


@pytest.mark.parametrize("kind", METRICS)
def test_scores_are_those_of_each_image_alone(kind):
    metric = METRICS[kind]
    objective = losses.semantic(ce=(2.0, losses.cross_entropy))
    scores = evaluate_images.ImageScores(metric, objective, step=3)
    batch, rng = batch_of(5), np.random.default_rng(1)
    logits = rng.normal(size=(5, 16, 16, 3)).astype(np.float32)
    made = jax.device_get(jax.jit(scores.metric())(logits, batch))
    whole = metrics.with_batch(made, batch).compute()
    assert sorted(scores.by_index) == [0, 3, 5, 7]  # Without the padding.
    for row, index in enumerate(batch["index"][:4].tolist()):
        one = {k: x[row : row + 1] for k, x in batch.items()}
        want = metric(logits[row : row + 1], one).compute()
        got = scores.by_index[index]
        loss = float(objective(logits[row : row + 1], one)["ce"][0])
        assert got["loss"] == got["loss/ce"] == pytest.approx(loss, rel=1e-5)
        for name, value in want.items():
            assert got[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    # The metric of the data set is not changed.
    plain = jax.device_get(jax.jit(metric)(logits, batch))
    assert whole == pytest.approx(
        metrics.with_batch(plain, batch).compute(), nan_ok=True
    )


def test_the_worst_come_first():
    found = {
        0: {"loss": 0.1, "mean_iou": 0.9},
        1: {"loss": 0.3, "mean_iou": math.nan},
        2: {"loss": 0.2, "mean_iou": 0.1},
    }
    rank = evaluate_images.ranked
    assert rank(found, monitor="mean_iou", mode="max") == ("mean_iou", [2, 0, 1])
    assert rank(found, monitor="mean_iou", mode="min") == ("mean_iou", [0, 2, 1])
    # A score that images do not have, such as an average precision.
    assert rank(found, monitor="mask_ap", mode="max") == ("loss", [1, 2, 0])


def test_the_table_of_images(tmp_path):
    found = {4: {"iou/=b": 0.5}, 9: {"iou/=b": math.nan, "@": 1.0}}
    path = tmp_path / "a.csv"
    evaluate_images.write_csv(path, found, [9, 4], lambda index: f"=image {index}")
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["rank", "index", "name", "iou/=b", "'@"]
    assert rows == [
        ["1", "9", "'=image 9", "", "1"],
        ["2", "4", "'=image 4", "0.5", ""],
    ]


def test_scores_of_detected_objects():
    """The second image has a missed object, and the third is padding."""
    batch = detections.batch(3)
    batch["weight"], batch["index"] = np.array([1, 1, 0], np.float32), np.arange(3)
    batch["size"] = np.tile(np.array(detections.SIZE, np.int32), (3, 1))
    like = vars(detections.outputs(3))
    like["scores"][1, 1], like["object_mask"][1, 1] = 0, False
    outputs = models.Detections(**like, size=batch["size"])
    metric = metrics.detections(detections.CLASSES)
    scores = evaluate_images.ImageScores(metric, lambda outputs, batch: {}, step=0)
    made = jax.device_get(jax.jit(scores.metric())(outputs, batch))
    metrics.with_batch(made, batch)
    assert sorted(scores.by_index) == [0, 1]
    for row in (0, 1):
        one = {k: x[row : row + 1] for k, x in batch.items()}
        want = metric(jax.tree.map(lambda x, i=row: x[i : i + 1], outputs), one)
        assert scores.by_index[row] == pytest.approx(want.compute(), nan_ok=True)
    assert scores.by_index[0]["mask_ap"] == pytest.approx(1)
    assert scores.by_index[1]["mask_ap"] < 1
