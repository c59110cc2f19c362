import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import ops
from tests import torchvision_oracle

N, A = 6, 40
match = jax.jit(ops.match, static_argnames=("high_threshold", "low_threshold"))
match_every_object = jax.jit(
    ops.match_every_object, static_argnames=("high_threshold", "low_threshold")
)
THRESHOLDS = {"high_threshold": 0.7, "low_threshold": 0.3}


def random_iou(rng, *, levels=10):
    """Few distinct values, so that there are many ties, at thresholds too."""
    return (rng.integers(0, levels + 1, (N, A)) / levels).astype(np.float32)


def test_by_hand():
    iou = np.float32([[0.8, 0.5, 0.1, 0.0], [0.1, 0.6, 0.2, 0.2]])
    object_mask, valid = np.ones(2, bool), np.ones(4, bool)
    got = match(iou, object_mask, valid, **THRESHOLDS)
    np.testing.assert_array_equal(got.index, [0, 1, 1, 1])
    np.testing.assert_array_equal(got.positive, [True, False, False, False])
    np.testing.assert_array_equal(got.negative, [False, False, True, True])
    # The second object has no IoU above 0.7; its best box is still positive.
    got = match_every_object(iou, object_mask, valid, **THRESHOLDS)
    np.testing.assert_array_equal(got.positive, [True, True, False, False])
    np.testing.assert_array_equal(got.negative, [False, False, True, True])
    # Without that box, two boxes tie for the best.
    got = match_every_object(
        iou, object_mask, np.array([1, 0, 1, 1], bool), **THRESHOLDS
    )
    np.testing.assert_array_equal(got.positive, [True, False, True, True])
    assert not np.any(got.negative)
    # A slot without an object matches nothing.
    got = match_every_object(iou, np.array([1, 0], bool), valid, **THRESHOLDS)
    np.testing.assert_array_equal(got.index, 0)
    np.testing.assert_array_equal(got.positive, [True, False, False, False])
    np.testing.assert_array_equal(got.negative, [False, False, True, True])


def test_without_objects_all_boxes_are_negative(rng):
    valid = rng.random(A) < 0.7
    for run in (match, match_every_object):
        got = run(random_iou(rng), np.zeros(N, bool), valid, **THRESHOLDS)
        np.testing.assert_array_equal(got.index, 0)
        np.testing.assert_array_equal(got.negative, valid)
        assert not np.any(got.positive)


def test_an_object_without_overlapping_boxes_matches_none():
    iou = np.float32([[0.0, 0.0, 0.0], [0.9, 0.2, 0.4]])
    got = match_every_object(iou, np.ones(2, bool), np.ones(3, bool), **THRESHOLDS)
    np.testing.assert_array_equal(got.positive, [True, False, False])
    np.testing.assert_array_equal(got.negative, [False, True, False])


@pytest.mark.parity
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    objects=st.integers(1, N),
    boxes=st.integers(1, A),
)
@pytest.mark.parametrize("every", [True, False])
def test_equals_torchvision(every, seed, objects, boxes):
    torchvision = torchvision_oracle.load()
    import torch

    rng = np.random.default_rng(seed)
    iou = random_iou(rng)
    iou[:, 0] = np.maximum(iou[:, 0], 0.1)  # Every object overlaps a box.
    rows = np.sort(rng.permutation(N)[:objects])
    columns = np.append(0, 1 + np.sort(rng.permutation(A - 1)[: boxes - 1]))
    matcher = torchvision.models.detection._utils.Matcher(
        0.7, 0.3, allow_low_quality_matches=every
    )
    want = matcher(torch.tensor(iou[np.ix_(rows, columns)])).numpy()
    object_mask, valid = np.isin(np.arange(N), rows), np.isin(np.arange(A), columns)
    # Values of empty slots and padding are ignored.
    iou = np.where(object_mask[:, None] & valid[None], iou, np.float32(np.nan))
    got = (match_every_object if every else match)(
        iou, object_mask, valid, **THRESHOLDS
    )
    np.testing.assert_array_equal(got.positive[columns], want >= 0)
    np.testing.assert_array_equal(got.negative[columns], want == -1)
    matched = np.asarray(got.index)[columns][want >= 0]
    np.testing.assert_array_equal(matched, rows[want[want >= 0]])
    assert not np.any((got.positive | got.negative) & ~valid)


def test_message():
    iou, object_mask, valid = (
        np.zeros((1, 2), np.float32),
        np.ones(1, bool),
        np.ones(2, bool),
    )
    with pytest.raises(ValueError, match=r"at most high_threshold, got 0.5 and 0.3"):
        ops.match(iou, object_mask, valid, high_threshold=0.3, low_threshold=0.5)


@functools.partial(jax.jit, static_argnames=("num_samples", "positive_fraction"))
def draw(rank, positive, negative, num_samples, positive_fraction):
    options = {"num_samples": num_samples, "positive_fraction": positive_fraction}
    return (
        ops.sample_balanced(rank, positive, negative, **options),
        ops.sample_balanced_masks(rank, positive, negative, **options),
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    positives=st.integers(0, A),
    negatives=st.integers(0, A),
    options=st.sampled_from([(8, 0.25), (8, 0.0), (8, 1.0), (16, 0.3), (A, 1.0)]),
)
def test_samples_exact_counts(seed, positives, negatives, options):
    rng = np.random.default_rng(seed)
    count, fraction = options
    kind = np.zeros(A, int)
    kind[:positives] = 1
    kind[positives : positives + negatives] = 2
    kind = rng.permutation(kind)
    positive, negative = kind == 1, kind == 2
    rank = rng.random(A).astype(np.float32)
    (index, used), masks = draw(rank, positive, negative, count, fraction)
    index, used = np.asarray(index), np.asarray(used)
    drawn = index[used]
    assert len(set(drawn.tolist())) == len(drawn)  # Without replacement.
    want_positive = min(positive.sum(), int(count * fraction))
    want_negative = min(negative.sum(), count - want_positive)
    # Positive ones first, then negative ones, then empty slots.
    assert positive[drawn[:want_positive]].all()
    assert negative[drawn[want_positive:]].all()
    assert len(drawn) == want_positive + want_negative
    assert used[: len(drawn)].all()
    assert not index[~used].any()
    # The lowest ranks of each kind; as masks the same.
    for one, mask, number in (
        (positive, masks[0], want_positive),
        (negative, masks[1], want_negative),
    ):
        lowest = np.sort(rank[one])[:number]
        np.testing.assert_array_equal(np.sort(rank[np.asarray(mask)]), lowest)
    in_slots = np.isin(np.arange(A), drawn)
    np.testing.assert_array_equal(masks[0] | masks[1], in_slots)


def test_all_boxes_are_sampled_if_asked(rng):
    positive = rng.random(A) < 0.4
    negative = ~positive & (rng.random(A) < 0.8)
    rank = rng.random(A).astype(np.float32)
    _, masks = draw(rank, positive, negative, A, 1.0)
    np.testing.assert_array_equal(masks[0], positive)
    np.testing.assert_array_equal(masks[1], negative)


def test_sampling_is_uniform(key):
    # Of 4 positive boxes 2, of 6 negative ones 2: 1/2 and 1/3, to five deviations.
    positive, negative = np.arange(12) < 4, (np.arange(12) >= 6)
    ranks = jax.random.uniform(key, (4000, 12))
    run = functools.partial(
        ops.sample_balanced_masks, num_samples=4, positive_fraction=0.5
    )
    masks = jax.jit(jax.vmap(run, (0, None, None)))(ranks, positive, negative)
    shares = np.asarray(masks[0] | masks[1]).mean(axis=0)
    np.testing.assert_allclose(shares[:4], 1 / 2, atol=0.04)
    np.testing.assert_array_equal(shares[4:6], 0)
    np.testing.assert_allclose(shares[6:], 1 / 3, atol=0.038)
