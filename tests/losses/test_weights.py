import jax
import numpy as np
import pytest
import sklearn.utils.class_weight
from scipy import ndimage

from segjax import losses


def _unet_map(instances, w0, sigma):
    """Equation 2 of the paper, with one distance transform per instance."""
    names = np.unique(instances[instances > 0])
    if len(names) < 2:
        return np.ones(instances.shape)
    maps = np.sort([ndimage.distance_transform_edt(instances != n) for n in names], 0)
    border = w0 * np.exp(-((maps[0] + maps[1]) ** 2) / (2 * sigma**2))
    return np.where(instances == 0, 1 + border, 1)


def test_border_weights_equal_the_papers_formula(rng):
    cells = ndimage.gaussian_filter(rng.normal(size=(4, 40, 33)), (0, 2, 2)) > 0.05
    instances = np.stack([ndimage.label(cell)[0] for cell in cells]).astype(np.int32)
    assert (instances.max(axis=(1, 2)) >= 4).all()
    instances[2] = instances[2] == 1  # One instance, then none.
    instances[3] = 0
    got = jax.jit(losses.border_weights)(instances)
    want = [_unet_map(one, 10.0, 5.0) for one in instances]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got = losses.border_weights(instances, w0=3.0, sigma=2.0)
    want = [_unet_map(one, 3.0, 2.0) for one in instances]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_border_weights_by_hand():
    instances = np.int32([[[1, 0, 0, 2, 2]]])
    got = losses.border_weights(instances, background=0.5, foreground=2.0)
    gap = 0.5 + 10 * np.exp(-9 / 50)  # 1 and 2 pixels away, either way.
    np.testing.assert_allclose(got, [[[2, gap, gap, 2, 2]]], rtol=1e-6)


def test_pixel_counts(rng):
    labels = rng.integers(0, 4, (3, 9, 8)).astype(np.int32)
    valid = rng.random(labels.shape) < 0.7
    want = [np.bincount(y[v], minlength=5) for y, v in zip(labels, valid, strict=True)]
    labels = np.where(valid, labels, np.int32(255))
    got = jax.jit(losses.pixel_counts, static_argnames="num_classes")(
        labels, valid, num_classes=5
    )
    np.testing.assert_array_equal(got, want)


def test_inverse_frequency_equals_scikit_learn(rng):
    labels = rng.choice(4, 1000, p=[0.7, 0.2, 0.05, 0.05])
    got = losses.inverse_frequency(np.bincount(labels, minlength=4))
    want = sklearn.utils.class_weight.compute_class_weight(
        "balanced", classes=np.arange(4), y=labels
    )
    np.testing.assert_allclose(got, want)
    np.testing.assert_allclose(got[labels].mean(), 1)


def test_median_frequency_by_hand():
    # Class 0: 6 of 20 pixels; class 1: 8 of 20; class 2: 6 of the 10 it occurs in.
    counts = np.asarray([[4, 6, 0, 0], [2, 2, 6, 0]])
    got = losses.median_frequency(counts)
    np.testing.assert_allclose(got, [0.4 / 0.3, 1, 0.4 / 0.6, 0])


def test_effective_number_equals_the_formula():
    counts, beta = np.asarray([1, 10, 0, 100_000]), 0.99
    seen = counts[counts > 0]
    want = (1 - beta) / (1 - beta**seen)
    got = losses.effective_number(counts, beta=beta)
    assert got[2] == 0
    np.testing.assert_allclose(got[counts > 0], want / want.mean(), rtol=1e-12)
    got = losses.effective_number(counts, beta=0.0)
    np.testing.assert_allclose(got, [1, 1, 0, 1])
    # The limit of 1 is the inverse frequency; accurate for beta close to 1.
    got = losses.effective_number(counts, beta=1 - 1e-14)
    inverse = losses.inverse_frequency(counts)
    np.testing.assert_allclose(got / got[0], inverse / inverse[0], rtol=1e-6)


def test_class_without_pixels_has_weight_0():
    counts = np.asarray([3, 0, 5])
    for weights in (
        losses.inverse_frequency(counts),
        losses.median_frequency(counts[None]),
        losses.effective_number(counts),
    ):
        assert weights[1] == 0
        assert (weights[[0, 2]] > 0).all()


def test_weights_go_into_a_loss(rng):
    logits = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 4, 4)).astype(np.int32)
    valid = np.ones(labels.shape, bool)
    counts = np.asarray(losses.pixel_counts(labels, valid, num_classes=3), np.int64)
    weights = losses.inverse_frequency(counts.sum(0))
    got = losses.cross_entropy(logits, labels, valid, class_weights=weights)
    assert np.isfinite(got).all()


def test_messages():
    with pytest.raises(ValueError, match=r"sigma above 0, got 0\.0"):
        losses.border_weights(np.zeros((1, 2, 2), np.int32), sigma=0.0)
    with pytest.raises(ValueError, match=r"beta in \[0, 1\), got 1\.0"):
        losses.effective_number(np.asarray([1, 2]), beta=1.0)
    with pytest.raises(ValueError, match="not all 0, got a smallest of 0"):
        losses.inverse_frequency(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="smallest of -2 and a largest of 5"):
        losses.median_frequency(np.asarray([[5, -2]]))
