import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from segjax import metrics
from tests.metrics import scenes

NAMES = scenes.NAMES


def expected_calibration_error(probs, labels, num_bins=15):
    """Guo et al.'s formula, a loop over half-open bins."""
    confidence, correct = probs.max(-1), probs.argmax(-1) == labels
    total = 0.0
    for m in range(1, num_bins + 1):
        inside = ((m - 1) / num_bins < confidence) & (confidence <= m / num_bins)
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            total += inside.mean() * abs(gap)
    return total


def test_equals_the_formulas(rng):
    logits, batch = scenes.batch(rng, examples=6, size=(30, 33))
    got = jax.jit(metrics.calibration(NAMES))(3 * logits, batch)
    scores, per_image = got.compute(), got.per_image()
    probs = scipy.special.softmax(3 * logits.astype(np.float64), axis=-1)
    valid = batch["valid"]
    want = expected_calibration_error(probs[valid], batch["label"][valid])
    assert want > 0.02
    assert scores["ece"] == pytest.approx(want, abs=8e-6)
    # scikit-learn 1.7 and later scales the multi-class score to [0, 2] by default.
    brier = np.mean(
        ((probs[valid] - np.eye(3)[batch["label"][valid]]) ** 2).sum(axis=-1)
    )
    assert scores["brier"] == pytest.approx(brier, abs=2e-5)
    images = [
        expected_calibration_error(probs[i][valid[i]], batch["label"][i][valid[i]])
        for i in range(6)
    ]
    np.testing.assert_allclose(per_image["ece_per_image"], images, atol=8e-6)
    assert scores["ece_per_image"] == pytest.approx(np.mean(images), abs=8e-6)
    labels = batch["label"][valid]
    nll = sklearn.metrics.log_loss(labels, probs[valid], labels=range(3))
    assert scores["nll"] == pytest.approx(nll, rel=1e-5)
    confidence, correct = probs[valid].max(-1), probs[valid].argmax(-1) == labels
    bins = np.ceil(confidence * 15)
    gaps = [abs((correct[bins == b] - confidence[bins == b]).mean()) for b in set(bins)]
    assert scores["mce"] == pytest.approx(max(gaps), abs=2e-5)


def test_binary_brier_is_twice_sklearn(rng):
    logits, batch = scenes.batch(rng, num_classes=2)
    got = metrics.calibration(("ground", "cat"))(logits, batch).compute()
    valid = batch["valid"]
    probs = scipy.special.softmax(logits.astype(np.float64), axis=-1)[valid][:, 1]
    one = sklearn.metrics.brier_score_loss(batch["label"][valid], probs)
    assert got["brier"] == pytest.approx(2 * one, abs=2e-5)


def test_confident_and_right_or_wrong():
    batch = {
        "label": np.zeros((1, 2, 2), np.int32),
        "valid": np.ones((1, 2, 2), bool),
        "weight": np.ones(1, np.float32),
        "index": np.zeros(1, np.int32),
    }
    logits = jnp.zeros((1, 2, 2, 2)).at[..., 0].set(100.0)
    metric = metrics.calibration(("a", "b"))
    assert metric(logits, batch).compute()["ece"] == 0
    assert metric(logits, batch).compute()["brier"] == 0
    assert metric(logits, batch).compute()["nll"] == 0
    assert metric(-logits, batch).compute()["nll"] == 100
    assert metric(-logits, batch).compute()["mce"] == 1
    assert metric(-logits, batch).compute()["ece"] == 1
    assert metric(-logits, batch).compute()["brier"] == 2
    diagram = metric(logits, batch).reliability_diagram()
    assert diagram["count"].tolist() == [0] * 14 + [4]
    assert diagram["accuracy"][-1] == diagram["confidence"][-1] == 1
    assert np.isnan(diagram["accuracy"][:-1]).all()


def test_bins_include_their_upper_edge():
    batch = {
        "label": np.zeros((1, 1, 2), np.int32),
        "valid": np.ones((1, 1, 2), bool),
        "weight": np.ones(1, np.float32),
        "index": np.zeros(1, np.int32),
    }
    logits = np.array([[[[0.0, 0.0], [9.0, 0.0]]]], np.float32)  # 1/2 and nearly 1.
    got = metrics.calibration(("a", "b"), num_bins=2)(logits, batch)
    assert got.reliability_diagram()["count"].tolist() == [1, 1]


def test_nan_without_valid_pixels(rng):
    logits, batch = scenes.batch(rng)
    batch["valid"] = np.zeros_like(batch["valid"])
    scores = metrics.calibration(NAMES)(logits, batch).compute()
    assert np.isnan(list(scores.values())).all()


def test_too_large_images_message():
    shapes = (
        jax.ShapeDtypeStruct((1, 4096, 4096, 2), jnp.float32),
        {
            "label": jax.ShapeDtypeStruct((1, 4096, 4096), jnp.int32),
            "valid": jax.ShapeDtypeStruct((1, 4096, 4096), bool),
            "weight": jax.ShapeDtypeStruct((1,), jnp.float32),
            "index": jax.ShapeDtypeStruct((1,), jnp.int32),
        },
    )
    with pytest.raises(ValueError, match="at most 8388608 pixels, got 4096x4096"):
        jax.eval_shape(metrics.calibration(("a", "b")), *shapes)


def test_a_class_masked_by_minus_infinity_has_a_likelihood(rng):
    logits, batch = scenes.batch(rng)
    batch["label"] = np.minimum(batch["label"], 1)
    logits[..., 2] = -np.inf
    got = metrics.calibration(NAMES)(logits, batch).compute()
    valid = batch["valid"]
    probs = scipy.special.softmax(logits.astype(np.float64), axis=-1)[valid]
    want = sklearn.metrics.log_loss(batch["label"][valid], probs[:, :2])
    assert got["nll"] == pytest.approx(want, rel=1e-5)
    assert np.isfinite(list(got.values())).all()


def test_classwise_error_equals_the_formula(rng):
    logits, batch = scenes.batch(rng, examples=3, size=(30, 33))
    made = jax.jit(metrics.classwise_calibration(NAMES))(3 * logits, batch)
    scores, per_image = made.compute(), made.per_image()
    probs = scipy.special.softmax(3 * logits.astype(np.float64), axis=-1)

    def errors(where):
        found = []
        for c in range(3):
            p, hit = probs[where][:, c], batch["label"][where] == c
            bins = np.ceil(p * 15)
            found.append(
                sum(
                    (bins == b).mean()
                    * abs(hit[bins == b].mean() - p[bins == b].mean())
                    for b in set(bins)
                )
            )
        return found

    want = errors(batch["valid"])
    assert min(want) > 0.01
    for name, value in zip(NAMES, want, strict=True):
        assert scores[f"classwise_ece/{name}"] == pytest.approx(value, abs=8e-6)
    assert scores["mean_classwise_ece"] == pytest.approx(np.mean(want), abs=8e-6)
    alone = batch["valid"] & (np.arange(3) == 1)[:, None, None]
    got = per_image["mean_classwise_ece_per_image"][1]
    assert got == pytest.approx(np.mean(errors(alone)), abs=8e-6)


def _equal_mass_error(probs, labels, num_bins):
    """From pixels in the order of their confidence; the last of a bin may be split."""
    order = np.argsort(probs.max(-1))
    gaps = (probs.argmax(-1) == labels)[order] - probs.max(-1)[order]
    total = np.concatenate([[0], np.cumsum(gaps)])
    edges = np.linspace(0, len(gaps), num_bins + 1)
    return np.abs(np.diff(np.interp(edges, np.arange(len(total)), total))).sum() / len(
        gaps
    )


def test_adaptive_error_equals_bins_of_sorted_pixels(rng):
    logits, batch = scenes.batch(rng, examples=6, size=(150, 133))
    metric = jax.jit(metrics.adaptive_calibration(NAMES, num_bins=12))
    made = metric(6 * logits, batch)
    probs = scipy.special.softmax(6 * logits.astype(np.float64), axis=-1)
    valid, label = batch["valid"], batch["label"]
    want = _equal_mass_error(probs[valid], label[valid], 12)
    # Where a fine bin is divided, the labels of its parts differ a little.
    assert made.compute()["adaptive_ece"] == pytest.approx(want, abs=4e-4)
    images = [
        _equal_mass_error(probs[i][valid[i]], label[i][valid[i]], 12) for i in range(6)
    ]
    found = made.per_image()["adaptive_ece_per_image"]
    np.testing.assert_allclose(found, images, atol=1e-3)


def test_adaptive_error_where_errors_of_one_bin_cancel():
    # 50 pixels say 0.96 and are right, 50 say 0.99, of which 0.95 would be right.
    sure = np.repeat([[0.96, 0.99]], 50, axis=0).reshape(1, 10, 10)
    logits = np.log(np.stack([1 - sure, sure], axis=-1)).astype(np.float32)
    label = np.ones((1, 10, 10), np.int32)
    label[0, :4, 1] = 0  # Of the second kind: 46 of 50 are right.
    batch = {
        "label": label,
        "valid": np.ones(label.shape, bool),
        "weight": np.ones(1, np.float32),
        "index": np.zeros(1, np.int32),
    }
    names = ("a", "b")
    made = metrics.adaptive_calibration(names, num_bins=2)(logits, batch).compute()
    assert made["adaptive_ece"] == pytest.approx((0.04 + 0.07) / 2, abs=1e-4)
    plain = metrics.calibration(names, num_bins=2)(logits, batch).compute()
    assert plain["ece"] == pytest.approx((0.07 - 0.04) / 2, abs=1e-4)
