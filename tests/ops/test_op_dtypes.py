"""Boxes and masks of any dtype give one result, or one line that names them."""

import jax.numpy as jnp
import numpy as np
import pytest

from segjax import ops

BOXES = np.array(
    [[0, 0, 20, 20], [1, 0, 20, 21], [30, 30, 200, 220], [5, 5, 5, 9]], np.int32
)
SCORES = np.float32([0.9, 0.8, 0.7, 0.6])
ALL = np.ones(4, bool)
INTEGERS = ("uint8", "uint16", "int16", "int32", "int64")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_boxes_are_floats(dtype, rng):
    boxes, floats = BOXES.astype(dtype), BOXES.astype(np.float32)
    for function in (
        ops.box_area,
        lambda x: ops.box_iou(x, x),
        lambda x: ops.clip_boxes(x, (100, 90)),
        lambda x: ops.encode_boxes(x, x[::-1], weights=(1.0, 1.0, 1.0, 1.0)),
        lambda x: ops.nms(x, SCORES, ALL, iou_threshold=0.95, max_outputs=4)[0],
    ):
        got, want = function(boxes), function(floats)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    features = rng.normal(size=(16, 16, 2)).astype(np.float32)
    options = {"output_size": (2, 2), "spatial_scale": 1 / 16, "aligned": True}
    for pool in (
        lambda x: ops.roi_align(features, x, sampling_ratio=2, **options),
        lambda x: ops.roi_align_adaptive(features, x, **options),
    ):
        np.testing.assert_array_equal(pool(boxes), pool(floats))


def test_nms_of_integer_boxes_keeps_its_threshold():
    index, kept = ops.nms(BOXES, SCORES, ALL, iou_threshold=0.95, max_outputs=4)
    assert index[kept].tolist() == [0, 1, 2, 3]  # IoU 0.86 of the first two.
    index, kept = ops.nms(BOXES, SCORES, ALL, iou_threshold=0.8, max_outputs=4)
    assert index[kept].tolist() == [0, 2, 3]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_areas_of_half_precision_boxes_do_not_overflow(dtype):
    boxes = jnp.asarray([[0, 0, 1024, 1024], [0, 0, 1024, 512]], dtype)
    assert ops.box_area(boxes).tolist() == [1024.0**2, 1024 * 512]
    assert ops.box_iou(boxes, boxes).tolist() == [[1, 0.5], [0.5, 1]]
    index, kept = ops.nms(
        boxes, jnp.ones(2), jnp.ones(2, bool), iou_threshold=0.4, max_outputs=2
    )
    assert index[kept].tolist() == [0]


def test_a_box_without_a_score_is_last():
    scores = np.float32([np.nan, 0.8, 0.7, np.nan])
    index, kept = ops.nms(BOXES, scores, ALL, iou_threshold=0.5, max_outputs=4)
    assert index[kept].tolist() == [1, 2, 3]


def test_integer_valid_of_nms_is_a_mask():
    for valid in (np.array([2, 0, 255, 1], np.uint8), np.array([1, 0, 1, 1])):
        index, kept = ops.nms(BOXES, SCORES, valid, iou_threshold=0.5, max_outputs=4)
        assert index[kept].tolist() == [0, 2, 3]


@pytest.mark.parametrize("value", [1, 2, 255])
def test_integer_masks_of_objects_are_masks(value, rng):
    masks = rng.random((3, 8, 9)) < 0.4
    integers = masks.astype(np.uint8) * np.uint8(value)
    index, boxes = np.arange(3, dtype=np.int32), np.float32([[1, 1, 7, 6]] * 3)
    for function in (
        lambda x: ops.mask_iou(x, x),
        ops.masks_to_boxes,
        ops.distance_transform,
        lambda x: ops.crop_masks(x, index, boxes, size=4),
    ):
        np.testing.assert_array_equal(function(integers), function(masks))


def test_no_boxes():
    none, no = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    assert ops.box_iou(none, BOXES).shape == (0, 4)
    assert ops.mask_iou(np.zeros((0, 3, 3), bool), np.ones((2, 3, 3), bool)).shape == (
        0,
        2,
    )
    assert ops.masks_to_boxes(np.zeros((0, 3, 3), bool)).shape == (0, 4)
    scores = np.zeros(0, np.float32)
    _, kept = ops.nms(none, scores, no, iou_threshold=0.5, max_outputs=3)
    assert kept.tolist() == [False] * 3
    index, kept = ops.nms(BOXES, SCORES, ALL, iou_threshold=0.5, max_outputs=0)
    assert index.shape == kept.shape == (0,)
    thresholds = {"high_threshold": 0.7, "low_threshold": 0.3}
    for match in (ops.match, ops.match_every_object):
        found = match(np.zeros((0, 4), np.float32), no, ALL, **thresholds)
        assert found.negative.all()
        assert not found.positive.any()
        found = match(np.zeros((2, 0), np.float32), ALL[:2], no, **thresholds)
        assert found.index.shape == (0,)
    _, kept = ops.sample_balanced(scores, no, no, num_samples=2, positive_fraction=0.5)
    assert kept.tolist() == [False] * 2


def test_messages(untyped):
    nms = {"iou_threshold": 0.5, "max_outputs": 2}
    for call, message in (
        (lambda: ops.box_area(BOXES[:, :3]), r"boxes needs shape \[..., 4\]"),
        (
            lambda: ops.box_iou(BOXES[0], BOXES),
            r"boxes needs shape \[N, 4\].*got \[4\]",
        ),
        (
            lambda: ops.nms(BOXES, SCORES[:3], ALL, **nms),
            r"scores needs shape \[N\] with N = 4 as boxes has, got \[3\]",
        ),
        (
            lambda: ops.nms(BOXES, SCORES, ALL * 1.0, **nms),
            r"valid needs a mask of bool.*got float64",
        ),
        (
            lambda: ops.nms(BOXES, SCORES, ALL, **{**nms, "iou_threshold": np.nan}),
            r"finite iou_threshold in \[0, 1\], got nan",
        ),
        (
            lambda: ops.nms(BOXES, SCORES, ALL, **{**nms, "max_outputs": 2.5}),
            r"whole number for max_outputs, got 2.5",
        ),
        (lambda: ops.distance_transform(np.ones((0, 3), bool)), "mask needs pixels"),
        (
            lambda: ops.mask_iou(np.ones((1, 2, 2)), np.ones((1, 2, 2), bool)),
            r"masks needs a mask of bool",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
