import jax
import numpy as np
import pytest

from segjax import losses
from tests import torchvision_oracle

LOSSES = (losses.giou_sum, losses.diou_sum, losses.ciou_sum)


def boxes(rng, shape):
    corner, size = rng.random((*shape, 2)) * 9, rng.random((*shape, 2)) * 5 + 0.1
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


def one(loss, a, b):
    return loss(np.float32([[a]]), np.float32([[b]]), np.ones((1, 1), bool))


def test_by_hand():
    # Beside each other, 2 wide: IoU 0, the box around has 8, of which 4 are empty.
    a, b = (0, 0, 1, 2), (3, 0, 4, 2)
    assert one(losses.giou_sum, a, b).total == pytest.approx(1 + 4 / 8)
    # Centers 3 apart, diagonal 16 + 4.
    assert one(losses.diou_sum, a, b).total == pytest.approx(1 + 9 / 20)
    # The same aspect ratio: nothing more.
    assert one(losses.ciou_sum, a, b).total == pytest.approx(1 + 9 / 20)
    for loss in LOSSES:
        assert one(loss, a, a).total == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_boxes_that_do_not_count_are_ignored(loss, rng):
    a, b, mask = boxes(rng, (3, 5)), boxes(rng, (3, 5)), rng.random((3, 5)) < 0.5
    want = loss(a, b, mask)
    np.testing.assert_array_equal(want.count, mask.sum(1))
    a, b = (np.where(mask[..., None], x, np.nan) for x in (a, b))
    got, grad = jax.value_and_grad(lambda x: loss(x, b, mask).total.sum())(a)
    np.testing.assert_allclose(got, want.total.sum(), rtol=1e-6)
    np.testing.assert_array_equal(grad[~mask], 0)
    assert loss(a[:0], b[:0], mask[:0]).total.shape == (0,)


@pytest.mark.parametrize("loss", LOSSES)
def test_boxes_without_area_are_finite(loss):
    point = np.float32([[[3, 3, 3, 3]]])
    for other in (point, point + 1, np.float32([[[1, 1, 5, 6]]])):
        for a, b in ((point, other), (other, point)):
            made, grad = jax.value_and_grad(
                lambda x, b=b: loss(x, b, np.ones((1, 1), bool)).total.sum()
            )(a)
            assert np.isfinite(made)
            assert np.isfinite(grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_any_dtype(loss):
    a, b = np.array([[[0, 0, 200, 200]]]), np.array([[[100, 0, 255, 255]]])
    want = loss(a.astype(np.float32), b.astype(np.float32), np.ones((1, 1), bool))
    got = loss(a.astype(np.uint8), b.astype(np.uint16), np.full((1, 1), 7, np.uint8))
    np.testing.assert_array_equal(got.total, want.total)
    assert one(loss, (np.nan, 0, 1, 1), (0, 0, 1, 1)).total != 0  # NaN.


@pytest.mark.parity
@pytest.mark.parametrize("name", ["giou", "diou", "ciou"])
def test_equal_torchvision(name, rng):
    import torch

    functions = {
        "giou": "generalized_box_iou_loss",
        "diou": "distance_box_iou_loss",
        "ciou": "complete_box_iou_loss",
    }
    theirs = getattr(torchvision_oracle.load().ops, functions[name])
    ours = getattr(losses, f"{name}_sum")
    a, b = boxes(rng, (2, 20)), boxes(rng, (2, 20))
    x = torch.tensor(a, requires_grad=True)
    want = theirs(x, torch.tensor(b)).sum(1)
    want.sum().backward()
    mask = np.ones(a.shape[:2], bool)
    got, grad = jax.value_and_grad(lambda x: ours(x, b, mask).total.sum())(a)
    np.testing.assert_allclose(ours(a, b, mask).total, want.detach(), rtol=1e-5)
    np.testing.assert_allclose(got, want.sum().item(), rtol=1e-5)
    np.testing.assert_allclose(grad, x.grad, rtol=1e-3, atol=1e-5)
