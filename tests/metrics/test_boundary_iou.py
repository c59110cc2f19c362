import jax
import numpy as np
import pytest
import scipy.ndimage

from segjax import metrics
from tests.metrics import scenes

SQUARE = np.ones((3, 3), bool)


def mask_to_boundary(mask, width):
    return mask & ~scipy.ndimage.binary_erosion(mask, SQUARE, iterations=width)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_mask_to_boundary_equals_repeated_erosion(rng, width):
    masks = scenes.blobs(rng, (6, 19, 23), smooth=4)
    masks[0], masks[1] = True, False
    got = metrics.mask_to_boundary(masks, width=width)
    for mask, one in zip(masks, got, strict=True):
        np.testing.assert_array_equal(one, mask_to_boundary(mask, width))


def test_equals_the_authors_formula(rng):
    logits, batch = scenes.batch(rng, size=(40, 60))
    batch["label"][1] = 0
    metric = metrics.boundary_iou(scenes.NAMES, dilation_ratio=0.03)
    width = 2  # 0.03 * hypot(40, 60) = 2.16.
    got = jax.jit(metric)(logits, batch)
    scores, per_image = got.compute(), got.per_image()
    predicted, ious, sums = logits.argmax(-1), [], np.zeros((2, 2))
    for i in range(5):
        row = []
        for c in (1, 2):
            valid = batch["valid"][i]
            a = mask_to_boundary((predicted[i] == c) & valid, width)
            b = mask_to_boundary((batch["label"][i] == c) & valid, width)
            hit, union = (a & b).sum(), (a | b).sum()
            sums[:, c - 1] += hit, union
            row.append(hit / union if union else np.nan)
        ious.append(row)
    want = np.array(ious)
    for c, name in ((0, "cat"), (1, "dog")):
        np.testing.assert_allclose(
            per_image[f"boundary_iou_per_image/{name}"], want[:, c], rtol=1e-12
        )
        assert scores[f"boundary_iou/{name}"] == pytest.approx(sums[0, c] / sums[1, c])
    assert scores["mean_boundary_iou"] == pytest.approx((sums[0] / sums[1]).mean())
    mean = np.nanmean(np.nanmean(want, axis=1))
    assert scores["mean_boundary_iou_per_image"] == pytest.approx(mean)


def test_empty_sides():
    logits = np.zeros((3, 6, 6, 2), np.float32)
    logits[0, 1:4, 1:4, 1] = 1
    label = np.zeros((3, 6, 6), np.int32)
    label[1, 1:4, 1:4] = 1
    batch = {
        "label": label,
        "valid": np.ones_like(label, bool),
        "weight": np.ones(3, np.float32),
        "index": np.arange(3, dtype=np.int32),
    }
    got = metrics.boundary_iou(("ground", "cat"))(logits, batch).per_image()
    want = [0, 0, np.nan]  # Only predicted, only true, neither.
    np.testing.assert_array_equal(got["boundary_iou_per_image/cat"], want)
