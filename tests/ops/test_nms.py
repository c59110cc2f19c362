import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segjax import ops
from tests import torchvision_oracle

# `segjax.ops.nms` is the function, which hides its module.
nms_module = importlib.import_module("segjax.ops.nms")
SIZES = (16, 128, 2000)  # A set of boxes is padded to the next of these.
THRESHOLDS = [round(0.05 * i, 2) for i in range(1, 20)]


@functools.partial(jax.jit, static_argnames="max_outputs")
def nms(boxes, scores, valid, iou_threshold, max_outputs):
    return ops.nms(
        boxes, scores, valid, iou_threshold=iou_threshold, max_outputs=max_outputs
    )


@functools.partial(jax.jit, static_argnames="max_outputs")
def multiclass_nms(boxes, scores, classes, valid, iou_threshold, max_outputs):
    return ops.multiclass_nms(
        boxes,
        scores,
        classes,
        valid,
        iou_threshold=iou_threshold,
        max_outputs=max_outputs,
    )


at_once, in_turn = (
    jax.jit(f, static_argnames="max_outputs")
    for f in (nms_module._keep_at_once, nms_module._keep_in_turn)
)


def greedy(boxes, scores, threshold):
    """Plain greedy NMS: sort, keep the first, drop overlapping boxes, repeat.

    Corners are whole numbers, so that areas are exact and only the ratio is rounded.
    """
    x0, y0, x1, y1 = boxes.astype(int).T
    area = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    # Python's sort is stable, so equal scores stay in the order of their indices.
    left = np.array(sorted(range(len(boxes)), key=lambda i: -scores[i]))
    keep = []
    while left.size:
        i, rest = left[0], left[1:]
        keep.append(i)
        w = np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest])
        h = np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest])
        shared = np.maximum(w, 0) * np.maximum(h, 0)
        union = np.maximum(area[i] + area[rest] - shared, 1)
        left = rest[~(np.float32(shared) / np.float32(union) > np.float32(threshold))]
    return keep


def random_set(seed, count, *, levels, far, padded):
    """Boxes with ties, duplicates and zero areas; garbage in the padding."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, far, (count, 2))
    size = rng.integers(0, max(far // 2, 2), (count, 2))
    boxes = np.concatenate([low, low + size], axis=1)
    twin = rng.integers(0, count, count)
    boxes = np.where(rng.random((count, 1)) < 0.2, boxes[twin], boxes)
    scores = rng.integers(-levels, levels, count) / levels
    place = np.sort(rng.permutation(padded)[:count])
    all_boxes = rng.choice([np.nan, np.inf, 1.0], (padded, 4)).astype(np.float32)
    all_scores = rng.choice([np.nan, np.inf, 2.0], padded).astype(np.float32)
    valid = np.zeros(padded, bool)
    all_boxes[place], all_scores[place], valid[place] = boxes, scores, True
    return all_boxes, all_scores, valid, place


def check(got, want):
    index, object_mask = (np.asarray(x) for x in got)
    assert index.dtype == np.int32
    assert object_mask.sum() == len(want)
    np.testing.assert_array_equal(index[object_mask], want)
    np.testing.assert_array_equal(index[~object_mask], 0)
    assert object_mask[: len(want)].all()


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    # Mostly few boxes, because the oracle is slow.
    count=st.one_of(
        *[st.integers(1, 16)] * 3, *[st.integers(17, 128)] * 3, st.integers(129, 2000)
    ),
    threshold=st.sampled_from(THRESHOLDS),
    levels=st.sampled_from([1, 3, 1000]),
    far=st.sampled_from([3, 12, 60, 300]),
)
@example(seed=1, count=2000, threshold=0.05, levels=1000, far=300)
@example(seed=2, count=2000, threshold=0.5, levels=3, far=60)
@example(seed=3, count=2000, threshold=0.95, levels=1000, far=300)
def test_equals_plain_greedy(seed, count, threshold, levels, far):
    padded = next(n for n in SIZES if n >= count)
    boxes, scores, valid, place = random_set(
        seed, count, levels=levels, far=far, padded=padded
    )
    want = place[greedy(boxes[place], scores[place], threshold)]
    check(nms(boxes, scores, valid, jnp.float32(threshold), padded), want)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 128),
    threshold=st.sampled_from(THRESHOLDS),
)
def test_multiclass_equals_nms_per_class(seed, count, threshold):
    rng = np.random.default_rng(seed)
    boxes, scores, valid, place = random_set(seed, count, levels=5, far=12, padded=128)
    classes = rng.integers(-1, 3, 128).astype(np.int32)
    kept = []
    for c in range(-1, 3):
        own = place[classes[place] == c]
        if own.size:
            kept += own[greedy(boxes[own], scores[own], threshold)].tolist()
    want = sorted(kept, key=lambda i: (-scores[i], i))
    got = multiclass_nms(boxes, scores, classes, valid, jnp.float32(threshold), 128)
    check(got, want)
    # Fewer outputs are the first of these, more are empty slots.
    for most in (7, 150):
        got = multiclass_nms(
            boxes, scores, classes, valid, jnp.float32(threshold), most
        )
        check(got, want[:most])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 128),
    threshold=st.sampled_from(THRESHOLDS),
    far=st.sampled_from([3, 12, 60]),
)
def test_all_pairs_equal_one_in_turn(seed, count, threshold, far):
    # The branch for accelerators, for boxes sorted by score.
    rng = np.random.default_rng(seed)
    boxes, _, valid, _ = random_set(seed, count, levels=5, far=far, padded=128)
    corners = np.where(valid[:, None], boxes, 0).T
    classes = rng.integers(0, 3, 128).astype(np.int32)
    arguments = corners, classes, valid, np.float32(threshold)
    for most in (9, 150):
        kept, number = at_once(*arguments, max_outputs=most)
        want, want_number = in_turn(*arguments, max_outputs=most)
        assert number == want_number
        np.testing.assert_array_equal(kept[:number], want[:number])


def test_many_boxes(rng):
    # More than `_ALL_PAIRS`; max_outputs is reached.
    x = np.repeat(np.arange(1500, dtype=np.float32) * 10, 3)
    boxes = np.stack([x, 0 * x, x + 9, 0 * x + 9], axis=1)
    order = rng.permutation(4500)
    scores = np.empty(4500, np.float32)
    scores[order] = np.linspace(0, 1, 4500)
    want = np.arange(1500) * 3 + scores.reshape(1500, 3).argmax(1)
    want = want[np.argsort(-scores[want])]
    check(nms(boxes, scores, np.ones(4500, bool), jnp.float32(0.5), 2000), want)


def test_by_hand():
    # IoU of the first two is 1/3, of the first and third 3/5 exactly.
    boxes = np.float32([[0, 0, 4, 4], [2, 0, 6, 4], [1, 0, 5, 4], [9, 9, 9, 9]])
    scores = np.float32([0.9, 0.8, 0.9, -np.inf])
    valid = np.ones(4, bool)
    check(nms(boxes, scores, valid, jnp.float32(0.6), 4), [0, 2, 1, 3])
    check(nms(boxes, scores, valid, jnp.float32(0.59), 4), [0, 1, 3])
    check(nms(boxes, scores, valid, jnp.float32(0.3), 4), [0, 3])
    check(nms(boxes, scores, np.zeros(4, bool), jnp.float32(0.3), 4), [])


def test_thresholds_below_one_half():
    # A chain, each box overlapping the next by 1/3: at 0.3 every other one stays.
    x = np.arange(300, dtype=np.float32) * 2
    boxes = np.stack([x, 0 * x, x + 4, 0 * x + 4], axis=1)
    scores = np.linspace(1, 0, 300, dtype=np.float32)
    got = nms(boxes, scores, np.ones(300, bool), jnp.float32(0.3), 300)
    check(got, np.arange(0, 300, 2))


def test_vmap_equals_one_by_one():
    sets = [random_set(seed, 12, levels=3, far=12, padded=16)[:3] for seed in range(5)]
    boxes, scores, valid = (np.stack(x) for x in zip(*sets, strict=True))
    run = functools.partial(ops.nms, iou_threshold=0.4, max_outputs=16)
    index, object_mask = jax.jit(jax.vmap(run))(boxes, scores, valid)
    for i in range(5):
        want = nms(boxes[i], scores[i], valid[i], jnp.float32(0.4), 16)
        np.testing.assert_array_equal(index[i], want[0])
        np.testing.assert_array_equal(object_mask[i], want[1])


def test_no_gradient():
    # A loss may hold scores of kept boxes: the choice itself has no gradient.
    boxes = np.float32([[0, 0, 4, 4], [1, 0, 5, 4]])

    def loss(boxes, scores):
        index, object_mask = ops.nms(
            boxes, scores, jnp.ones(2, bool), iou_threshold=0.5, max_outputs=2
        )
        return jnp.sum(jnp.where(object_mask, scores[index], 0))

    gradients = jax.grad(loss, argnums=(0, 1))(boxes, np.float32([0.2, 0.7]))
    np.testing.assert_array_equal(gradients[0], np.zeros((2, 4)))
    np.testing.assert_array_equal(gradients[1], [0, 1])


@pytest.mark.parity
def test_equals_torchvision_on_any_numbers(rng):
    torchvision = torchvision_oracle.load()
    import torch

    low = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 30, (300, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    scores = rng.random(300).astype(np.float32)
    for threshold in (0.15, 0.5, 0.7):
        want = torchvision.ops.nms(torch.tensor(boxes), torch.tensor(scores), threshold)
        got = nms(boxes, scores, np.ones(300, bool), jnp.float32(threshold), 300)
        check(got, want.numpy())
