"""Boxes and masks of any dtype give one result, or one line that names them."""

import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, ops

BOXES = np.array(
    [[0, 0, 20, 20], [1, 0, 20, 21], [30, 30, 200, 220], [5, 5, 5, 9]], np.int32
)
SCORES = np.float32([0.9, 0.8, 0.7, 0.6])
ALL = np.ones(4, bool)
RATIO = {"aspect_ratios": (1.0,)}
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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_integer_images_are_interpolated_in_float32(dtype, rng):
    image = rng.integers(0, 256, (1, 6, 7, 2)).astype(dtype)
    floats = image.astype(np.float32)
    rows, columns = rng.random((2, 3, 4)).astype(np.float32) * 5
    for function in (
        lambda x: ops.resize_bilinear(x, (4, 5)),
        lambda x: ops.sample_bilinear(x[0], rows, columns),
        ops.max_pool_2x2,
        ops.max_pool_3x3,
    ):
        got = function(image)
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, function(floats))
    whole = np.array([[0, 3]], np.int32), np.array([[1, 2]], np.int32)
    want = image[0, [0, 3], [1, 2]][None]
    np.testing.assert_array_equal(ops.sample_nearest(image[0], *whole), want)
    np.testing.assert_array_equal(ops.sample_bilinear(image[0], *whole), want)


def test_bools_are_interpolated_as_0_and_1(rng):
    mask, grid = rng.random((1, 6, 7, 1)) < 0.5, np.float32([[0.5, 2.25]])
    for function in (
        lambda x: ops.resize_bilinear(x, (4, 5)),
        lambda x: ops.sample_bilinear(x[0], grid, grid),
    ):
        np.testing.assert_array_equal(function(mask), function(mask.astype(np.float32)))


def test_half_precision_images_keep_their_dtype():
    image = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    for function in (lambda x: ops.resize_bilinear(x, (3, 3)), ops.max_pool_3x3):
        assert function(image).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [bool, *INTEGERS, "uint32", "uint64"])
def test_instances_of_any_dtype(dtype):
    instances = np.zeros((7, 8), dtype)
    instances[1, 1:3] = 1
    instances[5, 4:] = np.array(2).astype(dtype)
    want = ops.two_nearest(instances.astype(np.int32))
    np.testing.assert_array_equal(ops.two_nearest(instances), want)


def test_instance_ids_beyond_32_bits_are_told_apart():
    small = np.zeros((7, 8), np.int32)
    small[1, 1:3], small[5, 4:] = 1, 2
    # The low 32 bits of both are 0.
    huge = small.astype(np.int64) << 33
    np.testing.assert_array_equal(ops.two_nearest(huge), ops.two_nearest(small))
    np.testing.assert_array_equal(
        losses.border_weights(huge[None]), losses.border_weights(small[None])
    )


def test_messages_of_images(untyped):
    image, grid = np.ones((1, 4, 4, 3), np.float32), np.ones((2, 3), np.float32)
    for call, message in (
        (lambda: ops.resize_bilinear(image[0], (2, 2)), r"x needs shape \[B, H, W, C"),
        (lambda: ops.resize_bilinear(image, (2.5, 2)), r"size \(height, width\)"),
        (lambda: ops.resize_nearest(image, (0, 2)), r"whole numbers above 0, got \(0,"),
        (lambda: ops.resize_nearest(image[:, :0], (2, 2)), "at least one pixel"),
        (lambda: ops.resize_nearest(image, 2), "size .height, width.* got 2"),
        (lambda: ops.depth_to_space(image, 2), "channels divisible by .* 4, got 3"),
        (lambda: ops.bilinear_kernel(3), "even factor, got 3"),
        (lambda: ops.max_pool_2x2(image[0]), r"x needs shape \[B, H, W, C\]"),
        (lambda: ops.sample_bilinear(image[0], grid, grid[:1]), r"columns .* \[1, 3\]"),
        (lambda: ops.sample_nearest(image[0, :0], grid, grid), "at least one pixel"),
        (lambda: ops.cell_anchors((-1,), (1,)), r"finite size in \(0, inf.* got -1"),
        (lambda: ops.cell_anchors((1,), (np.nan,)), "finite aspect ratio .* got nan"),
        (
            lambda: ops.pyramid_anchors((4, 9), ((9, 4),), sizes=((1,),), **RATIO),
            "levels no larger than the image",
        ),
        (
            lambda: ops.pyramid_anchors((4, 4), ((0, 4),), sizes=((1,),), **RATIO),
            "whole numbers above 0",
        ),
        (lambda: ops.two_nearest(grid), "instances needs class ids .* got float32"),
        (lambda: ops.two_nearest(grid[:0] > 0), "instances needs pixels"),
        (
            lambda: ops.two_nearest(grid > 0, max_distance=np.nan),
            "max_distance of at least 0, got nan",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("dtype", "index"), [("int32", -1), ("int64", -100), ("uint8", 0), ("uint8", 255)]
)
def test_any_ignore_index(dtype, index):
    labels = np.array([[[0, 1, 2], [2, 1, 0]]]).astype(dtype)
    labels[0, 0, 1] = index
    got, valid = ops.split_ignored(labels, ignore_index=index)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(valid, labels != index)
    np.testing.assert_array_equal(got, np.where(labels == index, 0, labels))
    logits = np.ones((1, 2, 3, 3), np.float32)
    np.testing.assert_allclose(losses.cross_entropy(logits, got, valid), np.log(3))


def test_an_ignore_index_that_labels_cannot_have_is_refused():
    with pytest.raises(ValueError, match="an id of uint8, got -1"):
        ops.split_ignored(np.zeros((1, 2, 2), np.uint8), ignore_index=-1)
    with pytest.raises(ValueError, match="integer dtype, got float32"):
        ops.split_ignored(np.zeros((1, 2, 2), np.float32), ignore_index=0)
