import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from segjax import metrics

NAMES = ("background", "cat", "dog", "tree")
C = len(NAMES)


def _arrays(rng, size=(3, 7, 5)):
    truth, predicted = rng.integers(0, C, (2, *size)).astype(np.int32)
    return predicted, truth, rng.random(size) < 0.7


def _count(predicted, truth, valid):
    return metrics.Confusion.from_batch(predicted, truth, valid, classes=NAMES)


def test_scores_by_hand():
    # Truth 0 0 0 0 1 1 against 0 0 0 1 1 0: cats have one TP, one FN and one FP.
    matrix = np.array([[3, 1], [1, 1]])
    scores = metrics.Confusion(matrix, ("sky", "cat")).compute()
    assert scores == pytest.approx(
        {
            "iou/sky": 3 / 5,
            "iou/cat": 1 / 3,
            "mean_iou": 7 / 15,
            "dice/sky": 6 / 8,
            "dice/cat": 1 / 2,
            "mean_dice": 5 / 8,
            "mean_accuracy": (3 / 4 + 1 / 2) / 2,
            "pixel_accuracy": 4 / 6,
            "precision/sky": 3 / 4,
            "precision/cat": 1 / 2,
            "mean_precision": 5 / 8,
            "recall/sky": 3 / 4,
            "recall/cat": 1 / 2,
            "mean_recall": 5 / 8,
            "specificity/sky": 1 / 2,
            "specificity/cat": 3 / 4,
            "mean_specificity": 5 / 8,
            "binary_accuracy/sky": 4 / 6,
            "binary_accuracy/cat": 4 / 6,
            "mean_binary_accuracy": 4 / 6,
            # Chance: (4/6 * 4/6 + 2/6 * 2/6) = 5/9, so (2/3 - 5/9) / (4/9).
            "kappa": 1 / 4,
            # (1 * 3 - 1 * 1) / sqrt(2 * 2 * 4 * 4), the same for both of two classes.
            "matthews/sky": 1 / 4,
            "matthews/cat": 1 / 4,
            "mean_matthews": 1 / 4,
            "matthews": 1 / 4,
            "volume_similarity/sky": 1.0,
            "volume_similarity/cat": 1.0,
            "mean_volume_similarity": 1.0,
            "frequency_weighted_iou": 4 / 6 * 3 / 5 + 2 / 6 * 1 / 3,
        }
    )


@settings(max_examples=20, deadline=None)
@given(
    size=st.sampled_from([(1, 1, 1), (2, 1, 5), (4, 33, 17)]),
    seed=st.integers(0, 999),
)
def test_counts_equal_sklearn(size, seed):
    predicted, truth, valid = _arrays(np.random.default_rng(seed), size)
    valid.flat[0] = True  # scikit-learn rejects empty input.
    got = _count(predicted, np.where(valid, truth, 255), valid)
    want = sklearn.metrics.confusion_matrix(
        truth[valid], predicted[valid], labels=range(C)
    )
    np.testing.assert_array_equal(got.matrix, want)
    assert got.matrix.dtype == jnp.int32


def test_scores_equal_sklearn(rng):
    predicted, truth, valid = _arrays(rng)
    truth = np.minimum(truth, 2)  # No trees in truth, some predicted.
    scores = _count(predicted, truth, valid).compute()
    arguments = truth[valid], predicted[valid]
    options = {"average": None, "labels": range(C), "zero_division": 0}
    iou = sklearn.metrics.jaccard_score(*arguments, **options)
    dice = sklearn.metrics.f1_score(*arguments, **options)
    recall = sklearn.metrics.recall_score(*arguments, **options)
    for i, name in enumerate(NAMES):
        assert scores[f"iou/{name}"] == pytest.approx(iou[i])
        assert scores[f"dice/{name}"] == pytest.approx(dice[i])
    assert scores["iou/tree"] == 0
    assert scores["mean_iou"] == pytest.approx(iou.mean())
    assert scores["mean_dice"] == pytest.approx(dice.mean())
    assert scores["mean_accuracy"] == pytest.approx(recall[:3].mean())
    accuracy = sklearn.metrics.accuracy_score(*arguments)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy)
    precision = sklearn.metrics.precision_score(*arguments, **options)
    kappa = sklearn.metrics.cohen_kappa_score(*arguments)
    frequency = np.bincount(arguments[0], minlength=C) / arguments[0].size
    binary = sklearn.metrics.multilabel_confusion_matrix(*arguments, labels=range(C))
    for i, name in enumerate(NAMES):
        (tn, fp), (fn, tp) = binary[i]
        assert scores[f"precision/{name}"] == pytest.approx(precision[i])
        assert scores[f"recall/{name}"] == pytest.approx(recall[i])
        assert scores[f"specificity/{name}"] == pytest.approx(tn / (tn + fp))
        share = (tp + tn) / (tp + tn + fp + fn)
        assert scores[f"binary_accuracy/{name}"] == pytest.approx(share)
        one = [x == i for x in arguments]
        matthews = sklearn.metrics.matthews_corrcoef(*one)
        assert scores[f"matthews/{name}"] == pytest.approx(matthews)
        volume = 1 - abs(one[0].sum() - one[1].sum()) / (one[0].sum() + one[1].sum())
        assert scores[f"volume_similarity/{name}"] == pytest.approx(volume)
    matthews = sklearn.metrics.matthews_corrcoef(*arguments)
    assert scores["matthews"] == pytest.approx(matthews)
    for beta in (0.5, 1.0, 2.0):
        want = sklearn.metrics.fbeta_score(*arguments, beta=beta, **options)
        got = metrics.f_beta(scores, beta=beta)
        for i, name in enumerate(NAMES):
            assert got[f"f{beta:g}/{name}"] == pytest.approx(want[i])
        assert got[f"mean_f{beta:g}"] == pytest.approx(want.mean())
    assert scores["mean_recall"] == pytest.approx(recall.mean())
    assert scores["kappa"] == pytest.approx(kappa)
    assert scores["frequency_weighted_iou"] == pytest.approx((frequency * iou).sum())


def test_absent_class_is_nan_and_left_out():
    matrix = np.diag([5, 0, 5])
    scores = metrics.Confusion(matrix, ("a", "b", "c")).compute()
    assert np.isnan(scores["iou/b"])
    assert np.isnan(scores["dice/b"])
    assert scores["mean_iou"] == scores["mean_dice"] == scores["mean_accuracy"] == 1


def test_class_in_only_truth_or_prediction_scores_zero():
    # b is never predicted, c only predicted, d absent from both.
    matrix = np.array([[4, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = metrics.Confusion(matrix, ("a", "b", "c", "d")).compute()
    for score in ("iou", "dice", "precision", "recall", "matthews"):
        assert scores[f"{score}/b"] == scores[f"{score}/c"] == 0
        assert np.isnan(scores[f"{score}/d"])
    assert scores["specificity/b"] == 1
    assert np.isnan(scores["specificity/d"])
    assert scores["volume_similarity/b"] == scores["volume_similarity/c"] == 0
    beta = metrics.f_beta(scores, beta=2.0)
    assert beta["f2/b"] == beta["f2/c"] == 0
    assert np.isnan(beta["f2/d"])
    assert scores["mean_recall"] == pytest.approx((4 / 5 + 0 + 0) / 3)
    assert scores["mean_accuracy"] == pytest.approx((4 / 5 + 0) / 2)


def test_nan_without_valid_pixels():
    zeros = np.zeros((1, 2, 2), np.int32)
    scores = _count(zeros, zeros, zeros.astype(bool)).compute()
    assert np.isnan(list(scores.values())).all()


def test_merge_is_exact_past_int32():
    one = metrics.Confusion(np.array([[2**31 - 1]], np.int32), ("a",))
    both = one.merge(one)
    assert both.matrix == 2**32 - 2
    assert both.merge(one).matrix == 3 * (2**31 - 1)


def test_merge_rejects_other_classes():
    matrix = np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match=r"same classes, got \('a',\) and \('b',\)"):
        metrics.Confusion(matrix, ("a",)).merge(metrics.Confusion(matrix, ("b",)))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_order_and_any_batching_is_the_same(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    arrays = _arrays(rng, (6, 3, 3))
    order = data.draw(st.permutations(range(6)))
    cuts = sorted(data.draw(st.sets(st.integers(1, 5))))
    parts = [
        _count(*(x[list(indices)] for x in arrays))
        for indices in np.split(np.array(order), cuts)
    ]
    left = functools.reduce(lambda a, b: a.merge(b), parts)
    right = functools.reduce(lambda a, b: b.merge(a), reversed(parts))
    whole = _count(*arrays)
    np.testing.assert_array_equal(left.matrix, whole.matrix)
    np.testing.assert_array_equal(right.matrix, whole.matrix)
    assert left.compute() == whole.compute()


def _batch(rng, examples=10):
    logits = rng.normal(size=(examples, 6, 6, C)).astype(np.float32)
    valid = rng.random((examples, 6, 6)) < 0.8
    label = np.where(valid, rng.integers(0, C, valid.shape), 255).astype(np.int32)
    weight = np.ones(examples, np.float32)
    return logits, {"label": label, "valid": valid, "weight": weight}


def test_batches_of_four_equal_one_of_ten(rng):
    logits, batch = _batch(rng)
    metric = jax.jit(metrics.semantic(NAMES))
    whole = metric(logits, batch)

    def padded(start):
        """Four examples; the last are copies with weight 0, still marked valid."""
        rows = np.arange(start, start + 4)
        part = {k: v[rows % 10] for k, v in batch.items()}
        part["weight"] = (rows < 10).astype(np.float32)
        return metric(logits[rows % 10], part)

    merged = padded(0).merge(padded(4)).merge(padded(8))
    np.testing.assert_array_equal(merged.matrix, whole.matrix)
    assert merged.compute() == whole.compute()
    assert merged.matrix.sum() == batch["valid"].sum()


def test_the_largest_logit_wins(rng):
    _, batch = _batch(rng)
    truth = np.where(batch["valid"], batch["label"], 0)
    logits = jax.nn.one_hot(truth, C)
    scores = metrics.semantic(NAMES)(logits, batch).compute()
    assert scores["mean_iou"] == scores["pixel_accuracy"] == 1
    scores = metrics.semantic(NAMES)(-logits, batch).compute()
    assert scores["mean_iou"] == 0


def test_size_mismatch_message(rng):
    logits, batch = _batch(rng)
    with pytest.raises(
        ValueError, match=r"the same size, got logits .*Resize the logits"
    ):
        metrics.semantic(NAMES)(logits[:, :3, :4], batch)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32])
def test_labels_of_any_integer_dtype(dtype):
    """19 classes: 18 * 19 does not fit into 8 bits."""
    names = tuple(map(str, range(19)))
    label = (np.arange(2 * 19 * 4) % 19).reshape(2, 19, 4).astype(dtype)
    valid = np.ones(label.shape, bool)
    found = metrics.Confusion.from_batch(label, label, valid, classes=names)
    np.testing.assert_array_equal(found.matrix, 8 * np.eye(19))
    batch = {"index": np.arange(2), "weight": np.ones(2, np.float32)}
    images = metrics.ImageConfusion.from_batch(
        label, label, valid, batch, classes=names
    )
    assert images.compute()["pixel_accuracy"] == 1


def test_is_a_pytree_with_static_names():
    one = metrics.Confusion(jnp.ones((2, 2), jnp.int32), ("a", "b"))
    leaves, tree = jax.tree.flatten(one)
    assert len(leaves) == 1
    assert jax.tree.unflatten(tree, leaves).classes == ("a", "b")
    assert dataclasses.replace(one, classes=("c", "d")).classes == ("c", "d")


def test_messages(rng):
    logits, batch = _batch(rng)
    with pytest.raises(ValueError, match="distinct names, got cat twice"):
        metrics.semantic(["cat", "dog", "cat"])
    with pytest.raises(ValueError, match="logits of 2 channels, one per class, got 4"):
        metrics.semantic(["cat", "dog"])(logits, batch)


def test_matthews_of_a_single_class_is_undefined_or_0():
    # First truth is all a, then the prediction is.
    scores = metrics.Confusion(np.array([[5, 2], [0, 0]]), ("a", "b")).compute()
    assert np.isnan(scores["matthews"])
    assert np.isnan(scores["matthews/a"])
    assert scores["matthews/b"] == 0
    scores = metrics.Confusion(np.array([[5, 0], [2, 0]]), ("a", "b")).compute()
    assert scores["matthews"] == scores["matthews/a"] == scores["matthews/b"] == 0


def test_f_beta_messages():
    scores = metrics.Confusion(np.eye(2, dtype=int), ("a", "b")).compute()
    with pytest.raises(ValueError, match=r"finite beta in \(0, inf.* got 0"):
        metrics.f_beta(scores, beta=0.0)
    with pytest.raises(ValueError, match="needs scores with precision"):
        metrics.f_beta({"ece": 0.1}, beta=1.0)
