import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from tests import torchvision_oracle

B, A, R, C, P, M = 3, 30, 12, 4, 6, 5
NAMES = {"objectness", "rpn_box", "classifier", "box", "mask"}
batch_wise, image_wise = (
    jax.jit(lambda arrays, weight, f=f: f()(_outputs(arrays), {"weight": weight}))
    for f in (losses.instance, losses.instance_per_image)
)
ONES = np.ones(B, np.float32)


def _outputs(arrays):
    return types.SimpleNamespace(**arrays)


def random_arrays(rng, *, unequal=True):
    """Training outputs with different numbers of samples per image."""
    kind = rng.choice(3, (B, A), p=[0.2, 0.3, 0.5])
    classes = rng.integers(1, C, (B, R))
    number = np.array([R, R - 3, R - 5]) if unequal else np.full(B, R)
    objects = np.array([4, P, 0]) if unequal else np.full(B, 4)
    slot = np.arange(R)[None]
    proposal_mask = slot < number[:, None]
    classes = np.where(slot < objects[:, None], classes, 0)
    if not unequal:
        kind = np.stack([rng.permutation(row) for row in np.repeat(kind[:1], B, 0)])

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "objectness": normal(B, A),
        "anchor_deltas": normal(B, A, 4),
        "anchor_delta_targets": normal(B, A, 4),
        "anchor_positive": kind == 0,
        "anchor_negative": kind == 1,
        "class_logits": normal(B, R, C),
        "box_deltas": normal(B, R, C, 4),
        "class_targets": classes.astype(np.int32),
        "box_delta_targets": normal(B, R, 4),
        "proposal_mask": proposal_mask,
        "mask_logits": normal(B, P, M, M),
        "mask_targets": rng.random((B, P, M, M)).astype(np.float32),
        "mask_sampled": (proposal_mask & (classes > 0))[:, :P],
    }


def theirs(arrays):
    """torchvision's five losses for the same predictions and targets."""
    torchvision = torchvision_oracle.load()
    import torch
    from torch.nn import functional

    roi_heads = torchvision.models.detection.roi_heads
    rpn = torchvision.models.detection.rpn.RegionProposalNetwork
    t = {k: torch.tensor(v) for k, v in arrays.items()}
    positive, negative = t["anchor_positive"], t["anchor_negative"]
    sampler = types.SimpleNamespace(
        fg_bg_sampler=lambda labels: (list(positive), list(negative))
    )
    objectness, rpn_box = rpn.compute_loss(
        sampler,
        t["objectness"].reshape(-1, 1),
        t["anchor_deltas"].reshape(-1, 4),
        list(positive.float()),
        list(t["anchor_delta_targets"]),
    )
    kept = t["proposal_mask"]
    classifier, box = roi_heads.fastrcnn_loss(
        t["class_logits"][kept],
        t["box_deltas"][kept].flatten(1),
        [t["class_targets"][kept].long()],
        [t["box_delta_targets"][kept]],
    )
    # torchvision's `maskrcnn_loss` also crops the targets; here they are given.
    masks = t["mask_sampled"]
    mask = functional.binary_cross_entropy_with_logits(
        t["mask_logits"][masks], t["mask_targets"][masks]
    )
    values = dict(zip(("objectness", "rpn_box"), (objectness, rpn_box), strict=True))
    values |= {"classifier": classifier, "box": box, "mask": mask}
    return {k: float(v) for k, v in values.items()}


@pytest.mark.parity
def test_mean_over_the_batch_equals_torchvision(rng):
    arrays = random_arrays(rng)
    got = batch_wise(arrays, ONES)
    want = theirs(arrays)
    assert got.keys() == want.keys() == NAMES
    for name, values in got.items():
        assert values.shape == (B,)
        np.testing.assert_allclose(values.mean(), want[name], rtol=1e-5, err_msg=name)


@pytest.mark.parity
def test_images_of_weight_0_do_not_count(rng):
    arrays = random_arrays(rng)
    weight = np.float32([1, 1, 0])
    got = batch_wise(arrays, weight)
    want = theirs({k: v[:2] for k, v in arrays.items()})
    for name, values in got.items():
        mean = (values * weight).sum() / weight.sum()
        np.testing.assert_allclose(mean, want[name], rtol=1e-5, err_msg=name)
    nothing = batch_wise(arrays, 0 * ONES)
    assert all(np.isfinite(values).all() for values in nothing.values())


def test_per_image_loss_does_not_depend_on_the_batch(rng):
    arrays = random_arrays(rng)
    together = image_wise(arrays, ONES)
    for i in range(B):
        alone = {k: v[i : i + 1] for k, v in arrays.items()}
        for run in (image_wise, batch_wise):  # Equal for a batch of one.
            for name, values in run(alone, ONES[:1]).items():
                np.testing.assert_allclose(values[0], together[name][i], rtol=1e-5)


def test_both_objectives_agree_for_equal_counts(rng):
    arrays = random_arrays(rng, unequal=False)
    got, want = batch_wise(arrays, ONES), image_wise(arrays, ONES)
    for name in NAMES:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5)


def test_by_hand():
    # One positive and one negative anchor at logit 0: ln 2 each.
    zeros = np.zeros((1, 3), np.float32)
    positive = np.array([[True, False, False]])
    negative = np.array([[False, True, False]])
    total, count = losses.objectness_sum(zeros, positive, negative)
    np.testing.assert_allclose([total, count], [[2 * np.log(2)], [2]], rtol=1e-6)
    # Off by 1/18 (quadratic: 1/18 ** 2 * 9 / 2) and by 1 (linear: 1 - 1/18).
    deltas = np.zeros((1, 3, 4), np.float32)
    deltas[0, 0, :2] = [1 / 18, -1]
    total, count = losses.rpn_box_sum(deltas, 0 * deltas, positive, negative)
    np.testing.assert_allclose([total, count], [[1 / 72 + 17 / 18], [2]], rtol=1e-6)
    # Logits (0, 0) of two classes: ln 2 a sampled proposal.
    classes = np.int32([[1, 0, 0]])
    proposal_mask = positive | negative
    logits = np.zeros((1, 3, 2), np.float32)
    total, count = losses.class_sum(logits, classes, proposal_mask)
    np.testing.assert_allclose([total, count], [[2 * np.log(2)], [2]], rtol=1e-6)
    # Only the box of the true class is used, and none of background.
    boxes = np.full((1, 3, 2, 4), 7, np.float32)
    boxes[0, 0, 1] = [1, 0, 0, 0]
    total, count = losses.box_sum(boxes, 0 * deltas, classes, proposal_mask)
    np.testing.assert_allclose([total, count], [[17 / 18], [2]], rtol=1e-6)
    # Two masks of 2x2, one sampled: the mean over its cells, -log(sigmoid(2)) each.
    masks = np.full((1, 2, 2, 2), 2, np.float32)
    total, count = losses.mask_sum(masks, masks / 2, np.array([[True, False]]))
    np.testing.assert_allclose([total, count], [[np.log1p(np.exp(-2))], [1]], rtol=1e-6)


COUNTS = {
    "objectness": lambda a: a["anchor_positive"] | a["anchor_negative"],
    "anchor_deltas": lambda a: a["anchor_positive"],
    "anchor_delta_targets": lambda a: a["anchor_positive"],
    "class_logits": lambda a: a["proposal_mask"],
    "box_deltas": lambda a: a["proposal_mask"] & (a["class_targets"] > 0),
    "box_delta_targets": lambda a: a["proposal_mask"] & (a["class_targets"] > 0),
    "mask_logits": lambda a: a["mask_sampled"],
    "mask_targets": lambda a: a["mask_sampled"],
}


def _value(arrays):
    terms = batch_wise(arrays, ONES)
    return sum(jnp.sum(values) for values in terms.values())


@functools.partial(jax.jit)
def _gradients(predicted, rest):
    return jax.value_and_grad(lambda p: _value(p | rest))(predicted)


def _split(arrays):
    names = ("objectness", "anchor_deltas", "class_logits", "box_deltas", "mask_logits")
    return {k: arrays[k] for k in names}, {
        k: v for k, v in arrays.items() if k not in names
    }


def test_entries_that_are_not_sampled_are_ignored(rng):
    arrays = random_arrays(rng)
    broken = dict(arrays)
    for name, pixel_mask in COUNTS.items():
        mask = pixel_mask(arrays)
        mask = mask.reshape(mask.shape + (1,) * (arrays[name].ndim - 2))
        broken[name] = np.where(mask, arrays[name], np.float32(np.nan))
    broken["class_targets"] = np.where(
        arrays["proposal_mask"], arrays["class_targets"], 99
    )
    want, want_gradients = _gradients(*_split(arrays))
    got, gradients = _gradients(*_split(broken))
    assert got == want
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, want_gradients[name], err_msg=name)


def test_no_nan_without_objects(rng):
    arrays = random_arrays(rng)
    for name in ("anchor_positive", "mask_sampled"):
        arrays[name] = np.zeros_like(arrays[name])
    arrays["class_targets"] *= 0
    terms = batch_wise(arrays, ONES)
    for name in ("rpn_box", "box", "mask"):
        np.testing.assert_array_equal(terms[name], 0)
    assert all(np.all(terms[name] > 0) for name in ("objectness", "classifier"))
    for name in ("anchor_negative", "proposal_mask"):  # No samples at all.
        arrays[name] = np.zeros_like(arrays[name])
    value, gradients = _gradients(*_split(arrays))
    assert value == 0
    assert not any(np.any(gradient) for gradient in gradients.values())


def test_large_logits_stay_finite(rng):
    arrays = random_arrays(rng)
    for name in ("objectness", "class_logits", "mask_logits"):
        arrays[name] = arrays[name] * np.float32(1e4)
    value, gradients = _gradients(*_split(arrays))
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_weights_of_terms(rng):
    arrays = random_arrays(rng)
    objective = losses.instance(
        objectness=2.0, rpn_box=3.0, classifier=5.0, box=7.0, mask=0.0
    )
    got = objective(_outputs(arrays), {"weight": ONES})
    want = batch_wise(arrays, ONES)
    factors = {"objectness": 2, "rpn_box": 3, "classifier": 5, "box": 7, "mask": 0}
    for name, factor in factors.items():
        np.testing.assert_allclose(got[name], factor * want[name], rtol=1e-5)


def test_half_precision_is_summed_in_float32(rng):
    arrays = random_arrays(rng)
    half = {
        k: jnp.asarray(v, jnp.bfloat16) if v.dtype == np.float32 else v
        for k, v in arrays.items()
    }
    back = {
        k: jnp.asarray(v, jnp.float32) if v.dtype == jnp.bfloat16 else v
        for k, v in half.items()
    }
    got, want = batch_wise(half, ONES), batch_wise(back, ONES)
    for name in NAMES:
        assert got[name].dtype == jnp.float32
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)
