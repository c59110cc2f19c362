import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops
from tests import torchvision_oracle

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
iou = jax.jit(ops.box_iou)
encode = jax.jit(ops.encode_boxes, static_argnames="weights")
decode = jax.jit(ops.decode_boxes, static_argnames="weights")


def random_boxes(rng, count, *, far=100, least=1):
    low = rng.uniform(-far, far, (count, 2))
    size = rng.uniform(least, far, (count, 2))
    return np.concatenate([low, low + size], axis=1).astype(np.float32)


def painted(box, size=12):
    """The pixels of a box with whole-numbered corners, one by one."""
    x0, y0, x1, y1 = (int(v) for v in box)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def test_area_by_hand():
    boxes = np.float32([[1, 2, 4, 7], [3, 3, 3, 9], [5, 5, 4, 9], [5, 5, 4, 4]])
    np.testing.assert_array_equal(ops.box_area(boxes), [15, 0, 0, 0])
    np.testing.assert_array_equal(ops.box_area(boxes[None, 0]), [15])


def test_iou_by_hand():
    # 2x2 and 2x2 shifted by (1, 1): 1 of 7 pixels; beside each other: nothing.
    boxes = np.float32([[0, 0, 2, 2]])
    others = np.float32([[1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 2, 2], [0, 0, 2, 0]])
    np.testing.assert_allclose(iou(boxes, others), [[1 / 7, 0, 1, 0]], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(corners=st.lists(st.integers(0, 12), min_size=40, max_size=40))
def test_iou_counts_pixels(corners):
    # Any corners: no area if the second is not beyond the first.
    boxes = np.float32(corners).reshape(10, 4)
    pixels = [painted(box) for box in boxes]
    want = [[len(a & b) / max(len(a | b), 1) for b in pixels[4:]] for a in pixels[:4]]
    np.testing.assert_allclose(iou(boxes[:4], boxes[4:]), want, rtol=1e-6)


def test_boxes_without_area_have_no_nan():
    boxes = np.float32([[0, 0, 0, 0], [3, 3, 3, 3], [5, 5, 1, 1], [0, 0, 4, 4]])
    value, gradient = jax.value_and_grad(lambda b: jnp.sum(ops.box_iou(b, b)))(boxes)
    assert value == 1  # Only the last with itself.
    assert np.isfinite(gradient).all()
    for first, second in ((boxes, boxes[::-1]), (boxes[::-1], boxes)):
        deltas, gradient = jax.value_and_grad(
            lambda a, b: jnp.sum(ops.encode_boxes(a, b, weights=WEIGHTS))
        )(first, second)
        assert np.isfinite(deltas)
        assert np.isfinite(gradient).all()


@settings(max_examples=20, deadline=None)
@given(
    size=st.sampled_from([(1, 1), (1, 5), (6, 7)]),
    seed=st.integers(0, 999),
)
def test_mask_iou_counts_pixels(size, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((4, *size)) < 0.4
    others = rng.random((3, *size)) < 0.4
    masks[0] = others[0] = False
    got = jax.jit(ops.mask_iou)(masks, others)
    for i, a in enumerate(masks):
        for j, b in enumerate(others):
            want = (a & b).sum() / max((a | b).sum(), 1)
            np.testing.assert_allclose(got[i, j], want, rtol=1e-6)


def test_clip_to_a_traced_size():
    boxes = np.float32([[-3, -4, 50, 60], [1, 2, 3, 4], [40, 1, 50, 2]])
    want = [[0, 0, 30, 20], [1, 2, 3, 4], [30, 1, 30, 2]]
    got = jax.jit(ops.clip_boxes)(boxes, jnp.array([20, 30]))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(ops.clip_boxes(boxes[None], (20, 30))[0], want)


def test_encoding_by_hand():
    # The target is twice as wide; its center is 1 box width right, 1/2 height down.
    boxes, targets = np.float32([[0, 0, 4, 8]]), np.float32([[2, 4, 10, 12]])
    want = [[10 * 1, 10 * 0.5, 5 * np.log(2), 0]]
    np.testing.assert_allclose(encode(targets, boxes, weights=WEIGHTS), want, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_decoding_undoes_encoding(seed):
    rng = np.random.default_rng(seed)
    boxes, targets = random_boxes(rng, 20), random_boxes(rng, 20, least=2)
    # The growth of a box is limited: exclude larger targets.
    keep = np.all(
        (targets[:, 2:] - targets[:, :2]) < 60 * (boxes[:, 2:] - boxes[:, :2]), axis=1
    )
    deltas = encode(targets, boxes, weights=WEIGHTS)
    got = decode(deltas, boxes, weights=WEIGHTS)
    np.testing.assert_allclose(got[keep], targets[keep], atol=1e-3)
    # Deltas of 0 are the identity.
    same = decode(np.zeros_like(boxes), boxes, weights=WEIGHTS)
    np.testing.assert_allclose(same, boxes, atol=1e-4)


def test_growth_of_boxes_is_limited():
    deltas = np.float32([[0, 0, 1e9, np.log(2)], [0, 0, np.log(1000 / 16), -1e9]])
    boxes = np.float32([[0, 0, 1, 2]] * 2)
    got = np.asarray(decode(deltas, boxes, weights=(1.0, 1.0, 1.0, 1.0)))
    np.testing.assert_allclose(got[:, 2] - got[:, 0], [62.5, 62.5], rtol=1e-5)
    np.testing.assert_allclose(got[:, 3] - got[:, 1], [4, 0], atol=1e-5)


@pytest.mark.parity
def test_coding_equals_torchvision(rng):
    torchvision = torchvision_oracle.load()
    import torch

    coder = torchvision.models.detection._utils.BoxCoder(WEIGHTS)
    boxes, targets = random_boxes(rng, 50), random_boxes(rng, 50)
    tensors = torch.tensor(targets), torch.tensor(boxes)
    want = coder.encode_single(*tensors)
    np.testing.assert_allclose(
        encode(targets, boxes, weights=WEIGHTS), want, rtol=1e-5, atol=1e-5
    )
    deltas = rng.normal(size=(50, 3, 4)).astype(np.float32) * 3
    want = coder.decode(torch.tensor(deltas).reshape(50, 12), [tensors[1]])
    got = decode(deltas, boxes[:, None], weights=WEIGHTS)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    want = torchvision.ops.box_iou(*tensors)
    np.testing.assert_allclose(iou(targets, boxes), want, rtol=1e-5, atol=1e-6)
    want = torchvision.ops.clip_boxes_to_image(tensors[1], (30, 40))
    np.testing.assert_array_equal(ops.clip_boxes(boxes, (30, 40)), want)


def test_boxes_around_masks(rng):
    masks = rng.random((20, 9, 11)) < 0.03
    masks[0] = False
    masks[1] = True
    masks[2] = False
    masks[2, 4, 5] = True  # One pixel: a box of area 1.
    got = np.asarray(jax.jit(ops.masks_to_boxes)(masks))
    for box, mask in zip(got, masks, strict=True):
        rows, columns = np.nonzero(mask)
        want = [0, 0, 0, 0]
        if rows.size:
            want = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(box, want)
