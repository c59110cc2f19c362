"""Detection losses, sigmoid targets and weights: any dtype, -inf, out of range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses

B, A, R, C, P, M = 2, 5, 4, 3, 3, 2


@pytest.fixture
def arrays(rng):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    kind = rng.integers(0, 3, (B, A))
    anchors = kind == 0, kind == 1
    classes, slots = rng.integers(0, C, (B, R)), rng.random((B, R)) < 0.7
    masks = rng.random((B, P, M, M)) < 0.5
    return {
        losses.objectness_sum: (normal(B, A), *anchors),
        losses.rpn_box_sum: (normal(B, A, 4), normal(B, A, 4), *anchors),
        losses.class_sum: (normal(B, R, C), classes, slots),
        losses.box_sum: (normal(B, R, C, 4), normal(B, R, 4), classes, slots),
        losses.mask_sum: (normal(B, P, M, M), masks, rng.random((B, P)) < 0.7),
    }


@pytest.mark.parametrize("value", [1, 2, 255])
def test_integer_masks_are_masks(arrays, value):
    for loss, arguments in arrays.items():
        integers = [
            x.astype(np.uint8) * np.uint8(value) if x.dtype == bool else x
            for x in arguments
        ]
        got, want = loss(*integers), loss(*arguments)
        np.testing.assert_array_equal(got.total, want.total)
        np.testing.assert_array_equal(got.count, want.count)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int64"])
def test_classes_of_any_integer_dtype(arrays, dtype):
    for loss in (losses.class_sum, losses.box_sum):
        cast = [x.astype(dtype) if x.dtype == np.int64 else x for x in arrays[loss]]
        np.testing.assert_array_equal(loss(*cast).total, loss(*arrays[loss]).total)


def test_no_entries_are_no_loss(arrays):
    for loss, arguments in arrays.items():
        none = [np.zeros_like(x) if x.dtype == bool else x for x in arguments]
        found = loss(*none)
        assert found.total.tolist() == found.count.tolist() == [0, 0]
        no_images = loss(*(x[:0] for x in arguments))
        assert no_images.total.shape == (0,)


@pytest.mark.parametrize("loss", [losses.objectness_sum, losses.mask_sum])
def test_minus_infinity_where_the_target_is_0_costs_nothing(arrays, loss):
    logits, positive, *rest = arrays[loss]
    want = loss(np.where(positive, logits, -1e4), positive, *rest).total
    masked = jnp.where(positive, logits, -jnp.inf)
    got, grad = jax.value_and_grad(lambda x: loss(x, positive, *rest).total.sum())(
        masked
    )
    np.testing.assert_allclose(got, want.sum(), rtol=1e-6)
    assert np.isfinite(grad).all()


def test_a_class_of_minus_infinity_costs_nothing(arrays):
    logits, classes, slots = arrays[losses.class_sum]
    classes = np.minimum(classes, 1)
    logits[..., 2] = -1e4
    want = losses.class_sum(logits, classes, slots).total
    logits[..., 2] = -np.inf
    np.testing.assert_array_equal(losses.class_sum(logits, classes, slots).total, want)


def test_messages_of_detection(arrays, untyped):
    logits, classes, slots = arrays[losses.class_sum]
    every = np.ones_like(slots)
    masks = arrays[losses.mask_sum]
    for call, message in (
        (lambda: losses.class_sum(logits, classes + 3, every), r"targets .*\[0, 3\)"),
        (lambda: losses.class_sum(logits, classes - 3, every), r"targets .*\[0, 3\)"),
        (lambda: losses.class_sum(logits, classes / 2, slots), "targets .* float64"),
        (lambda: losses.class_sum(logits, classes, slots / 1), "proposal_mask .* bool"),
        (lambda: losses.class_sum(logits, classes[:, 1:], slots), r"targets .* R = 4"),
        (
            lambda: losses.mask_sum(masks[0], masks[1] * 255.0, masks[2] | True),
            r"targets needs numbers in \[0, 1\], got 255",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "loss", [losses.sigmoid_cross_entropy, losses.sigmoid_dice, losses.sigmoid_focal]
)
@pytest.mark.parametrize("wrong", [255.0, -1.0])
def test_float_targets_out_of_range_are_refused(loss, wrong, rng):
    logits = rng.normal(size=(1, 3, 3, 2)).astype(np.float32)
    targets, valid = np.zeros_like(logits), np.ones((1, 3, 3), bool)
    want = loss(logits, targets, valid)
    targets[0, 1, 1] = wrong
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {wrong:g} at 2 of 18"):
        loss(logits, targets, valid)
    valid[0, 1, 1] = False  # Nobody looks there.
    assert loss(logits, targets, valid).shape == want.shape


def test_numbers_of_weights_are_checked(rng, untyped):
    labels, valid = rng.integers(0, 3, (1, 4, 4)), np.ones((1, 4, 4), bool)
    for call, message in (
        (lambda: losses.border_weights(labels, w0=np.nan), "finite w0"),
        (lambda: losses.pixel_counts(labels, valid, num_classes=2), r"\[0, 2\)"),
        (lambda: losses.median_frequency(np.array([1, 2])), r"\[N, C\], got \[2\]"),
        (lambda: losses.inverse_frequency(np.ones((1, 2), int)), r"\[C\], got \[1, 2"),
        (
            lambda: losses.semantic(ce=(np.nan, losses.cross_entropy)),
            "finite weight of ce .* got nan",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    counted = losses.pixel_counts(labels.astype(np.uint8), valid * 1, num_classes=3)
    np.testing.assert_array_equal(counted[0], np.bincount(labels.ravel(), minlength=3))
