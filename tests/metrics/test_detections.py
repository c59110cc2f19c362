"""End-to-end scores of detections: perfect, worse, and none."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import metrics, ops
from tests.metrics import scenes

CLASSES = ("background", "square", "bar")
SIZE = (40, 60)
BOXES = np.array([[4, 4, 20, 24], [30, 10, 58, 26], [0, 0, 0, 0]], np.float32)


def batch(images=2):
    masks = np.zeros((images, 3, *SIZE), bool)
    for n, (x0, y0, x1, y1) in enumerate(BOXES[:2].astype(int)):
        masks[:, n, y0:y1, x0:x1] = True
    return {
        "boxes": np.tile(BOXES, (images, 1, 1)),
        "classes": np.tile(np.array([1, 2, 0], np.int32), (images, 1)),
        "object_mask": np.tile([True, True, False], (images, 1)),
        "masks": masks,
        "valid": np.ones((images, *SIZE), bool),
        "index": np.arange(images, dtype=np.int32),
        "weight": np.ones(images, np.float32),
    }


def outputs(images=2, *, boxes=BOXES, classes=(1, 2, 0), scores=(0.9, 0.8, 0.0)):
    """Masks that fill their boxes."""
    return types.SimpleNamespace(
        boxes=jnp.tile(boxes, (images, 1, 1)),
        classes=np.tile(np.asarray(classes, np.int32), (images, 1)),
        scores=np.tile(np.asarray(scores, np.float32), (images, 1)),
        object_mask=np.tile(np.asarray(scores) > 0, (images, 1)),
        masks=np.ones((images, 3, 28, 28), np.float32),
        aligned=False,
    )


def scores(found, true):
    return metrics.detections(CLASSES)(found, true).compute()


def test_perfect_detections_score_one():
    got = scores(outputs(), batch())
    for name in ("box_ap", "mask_ap50", "box_ap/bar", "f1@0.75", "dsb2018_score@0.50"):
        assert got[name] == pytest.approx(1), name


def test_masks_are_pasted_by_their_alignment():
    # A triangle at thresholds up to 0.95: half a pixel would cost some of them.
    true, found = batch(), outputs()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    true["masks"] &= x / 60 + y / 40 < 0.9
    true["boxes"] = np.asarray(jax.vmap(ops.masks_to_boxes)(true["masks"]))
    index = np.arange(3, dtype=np.int32)
    for aligned in (True, False):
        cut = [
            ops.crop_masks(masks, index, boxes, size=28, aligned=aligned)
            for masks, boxes in zip(true["masks"], true["boxes"], strict=True)
        ]
        found.boxes, found.masks, found.aligned = true["boxes"], np.array(cut), aligned
        assert (scores(found, true)["mask_ap"] == pytest.approx(1)) == aligned


def test_a_wrong_class_lowers_precision_but_not_matching():
    got = scores(outputs(classes=(2, 2, 0)), batch())
    assert got["box_ap/square"] == 0
    # Half of the detections of bars are wrong, and have higher scores: precision
    # is 1/2 at every recall.
    assert got["box_ap/bar"] == pytest.approx(0.5)
    assert got["f1@0.50"] == 1


def test_detections_with_low_scores_are_left_out_of_matching():
    got = scores(outputs(scores=(0.9, 0.3, 0.0)), batch())
    assert got["recall@0.50"] == 0.5
    assert got["box_ap"] == pytest.approx(1)


def test_no_detection_and_no_object():
    got = scores(outputs(scores=(0, 0, 0)), batch())
    assert got["mask_ap"] == 0
    assert got["f1@0.50"] == 0
    nothing = batch() | {"object_mask": np.zeros((2, 3), bool)}
    got = scores(outputs(scores=(0, 0, 0)), nothing)
    assert np.isnan(got["mask_ap"])
    assert np.isnan(got["f1@0.50"])


def test_detections_in_crowds_are_ignored():
    crowd = batch() | {"crowd": np.tile([False, True, False], (2, 1))}
    got = scores(outputs(), crowd)
    assert got["box_ap"] == pytest.approx(1)
    assert got["precision@0.50"] == 1
    assert got["fn@0.50"] == 0


def test_padding_rows_and_batches_change_nothing():
    metric = scenes.compiled(
        lambda boxes, batch: metrics.detections(CLASSES)(outputs(4, boxes=boxes), batch)
    )
    moved = BOXES + np.array([2, 0, 2, 0], np.float32)
    padded = batch(4) | {"weight": np.array([1, 1, 0, 1], np.float32)}
    whole = metric(moved, padded).compute()
    part = metrics.detections(CLASSES)(outputs(3, boxes=moved), batch(3)).compute()
    assert whole == pytest.approx(part, nan_ok=True)
    assert 0.3 < whole["box_ap"] < 0.9


def test_messages():
    with pytest.raises(ValueError, match="a class besides the background"):
        metrics.detections(("background",))
    bare = {k: v for k, v in batch().items() if k != "masks"}
    with pytest.raises(ValueError, match="max_objects=N"):
        scores(outputs(), bare)
