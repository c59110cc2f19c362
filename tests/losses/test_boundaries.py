import jax
import numpy as np
import pytest
from scipy import ndimage

from segjax import losses

# Compiled, because they take seconds operation by operation.
boundary = jax.jit(losses.boundary, static_argnames="spacing")
hausdorff = jax.jit(losses.hausdorff, static_argnames=("alpha", "spacing"))
FOREGROUND = np.asarray([0.0, 1.0])


@pytest.fixture
def batch(rng):
    """Blobs of three classes; the second image lacks class 2, the third has one."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, 13, 17, 3)), (0, 2, 2, 0))
    labels = np.argmax(smooth, axis=-1).astype(np.int32)
    labels[1] = np.minimum(labels[1], 1)
    labels[2] = 1
    logits = (3 * np.eye(3)[labels] + rng.normal(size=(3, 13, 17, 3), scale=2)).astype(
        np.float32
    )
    return logits, labels, np.ones(labels.shape, bool)


def _softmax(logits):
    e = np.exp(np.float64(logits))
    return e / e.sum(-1, keepdims=True)


def _kervadec(mask, spacing):
    """The `one_hot2dist` of the paper's code, for one class."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return outside * ~mask - (inside - min(spacing)) * mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5)])
def test_boundary_equals_the_papers_code(batch, spacing):
    logits, labels, _ = batch
    weights = np.asarray([0.0, 1.0, 2.0])
    probs, want = _softmax(logits), []
    for p, y in zip(probs, labels, strict=True):
        maps = [_kervadec(y == k, spacing) for k in range(3)]
        want.append(sum(weights[k] * (p[..., k] * maps[k]).mean() for k in range(3)))
    got = boundary(*batch, class_weights=weights, spacing=spacing)
    np.testing.assert_allclose(got, np.asarray(want) / 3, rtol=1e-5, atol=1e-6)


def test_boundary_by_hand():
    # Class 1 at the end of a row: phi is 3 2 1 | 0 -1, class 0 has -2 -1 0 | 1 2.
    labels, valid = np.int32([[[0, 0, 0, 1, 1]]]), np.ones((1, 1, 5), bool)
    logits = np.zeros((1, 1, 5, 2), np.float32)
    got = boundary(logits, labels, valid, class_weights=FOREGROUND)
    np.testing.assert_allclose(got, [5 / 2 / 5], rtol=1e-6)
    got = boundary(logits, labels, valid, class_weights=1 - FOREGROUND)
    np.testing.assert_allclose(got, [0], atol=1e-6)
    # The third pixel is void: class 1 is now two pixels from class 0, phi 3 2 | -1 -2.
    valid[0, 0, 2] = False
    got = boundary(logits, labels, valid, class_weights=FOREGROUND)
    np.testing.assert_allclose(got, [2 / 2 / 4], rtol=1e-6)


def _to_other_side(mask):
    """Distance of each pixel to the other side of the mask's boundary."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    return ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_equals_the_formula(batch, alpha):
    logits, labels, _ = batch
    weights = np.asarray([1.0, 1.0, 2.0])
    probs, want = _softmax(logits), []
    for p, y in zip(probs, labels, strict=True):
        terms = []
        for k in range(3):
            predicted, true = _to_other_side(p[..., k] > 0.5), _to_other_side(y == k)
            cost = (p[..., k] - (y == k)) ** 2 * (predicted**alpha + true**alpha)
            terms.append(cost.mean())
        want.append(weights @ terms / weights.sum())
    got = hausdorff(*batch, alpha=alpha, class_weights=weights)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_errors_far_from_the_boundary_cost_more():
    labels, valid = np.zeros((1, 9, 30), np.int32), np.ones((1, 9, 30), bool)
    labels[0, :, :5] = 1
    values = []
    for column in (6, 12, 25):  # One pixel of class 1 where there is none.
        guess = labels.copy()
        guess[0, 4, column] = 1
        values.append(hausdorff(np.float32(30 * np.eye(2)[guess]), labels, valid))
    assert values[0] < values[1] < values[2]


def test_void_pixels_are_not_part_of_a_region(batch):
    # A border of void does not change the distances inside.
    logits, labels, valid = (x[:1] for x in batch)
    pad = ((0, 0), (3, 2), (1, 4))
    padded = (
        np.pad(logits, (*pad, (0, 0)), constant_values=np.nan),
        np.pad(labels, pad, constant_values=255),
        np.pad(valid, pad),
    )
    for loss in (boundary, hausdorff):
        got, want = loss(*padded), loss(logits, labels, valid)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_class_that_is_absent_or_fills_the_image_contributes_0(batch):
    logits, labels, valid = batch
    only = {"class_weights": np.asarray([0.0, 0.0, 1.0])}
    assert boundary(logits, labels, valid, **only)[1] == 0
    np.testing.assert_array_equal(boundary(logits, labels, valid)[2], 0)
    sure = np.float32(30 * np.eye(3)[labels])
    assert hausdorff(sure, labels, valid, **only)[1] == 0


def test_messages(batch):
    with pytest.raises(ValueError, match="alpha above 0, got 0"):
        losses.hausdorff(*batch, alpha=0.0)
    for loss in (losses.boundary, losses.hausdorff):
        with pytest.raises(ValueError, match="spacing needs"):
            loss(*batch, spacing=(1.0, -1.0))
