import numpy as np
import pytest

from segjax import metrics
from tests.metrics import scenes

NAMES = ("sky", "cat", "dog")


def panoptic(rng, count=6, size=(26, 30)):
    """(classes, ids) of prediction and truth: one stuff class, two of things."""
    label = scenes.labels(rng, (count, *size))
    truth = label, np.where(label > 0, metrics.connected_components(label > 0), 0)
    moved = [np.roll(x, (1, 1), (1, 2)) for x in truth]
    classes = np.where(rng.random(label.shape) < 0.03, 0, moved[0])
    wrong = (moved[1] % 4 == 3) & (moved[0] > 0)
    classes = np.where(wrong, 3 - moved[0], classes)
    predicted = classes, np.where(classes > 0, moved[1] + 2, 0)
    valid = ~scenes.blobs(rng, label.shape, smooth=1.0)
    valid[:, :, 20:] |= rng.random(valid[:, :, 20:].shape) < 0.5
    predicted[0][0] = truth[0][0]
    predicted[1][0] = truth[1][0]
    return predicted, truth, valid


def transcription(predicted, truth, valid, num_classes=3, crowd=None):
    """Kirillov et al. on masks: segments, then matches, then what is left.

    A crowd pixel stays in the union, as in the authors' code.
    """
    crowd = np.zeros_like(valid) if crowd is None else crowd
    sides = []
    for classes, ids in (predicted, truth):
        pairs = {(int(c), int(i)) for c, i in zip(classes.flat, ids.flat, strict=True)}
        sides.append({s: (classes == s[0]) & (ids == s[1]) for s in sorted(pairs)})
    p_masks, t_masks = sides
    real = valid & ~crowd
    t_masks = {s: m & real for s, m in t_masks.items() if (m & real).any()}
    sums = np.zeros((4, num_classes))
    matched_p, matched_t = set(), set()
    for t, a in t_masks.items():
        for p, b in p_masks.items():
            b = b & valid
            if t[0] == p[0] and (iou := (a & b).sum() / (a | b).sum()) > 0.5:
                sums[0, t[0]] += 1
                sums[3, t[0]] += iou
                matched_p.add(p)
                matched_t.add(t)
    for t in t_masks.keys() - matched_t:
        sums[2, t[0]] += 1
    for p in p_masks.keys() - matched_p:
        excused = ~valid | (crowd & (truth[0] == p[0]))
        if (p_masks[p] & excused).sum() / p_masks[p].sum() <= 0.5:
            sums[1, p[0]] += 1
    return sums


def test_equals_the_papers_definition(rng):
    predicted, truth, valid = panoptic(rng)
    label = np.where(valid, truth[0], 255)  # Ignored where not valid.
    batch = {"index": np.arange(6), "weight": np.ones(6)}
    got = metrics.Panoptic.from_batch(
        predicted, (label, truth[1]), valid, batch, classes=NAMES
    )
    images = [
        transcription(*([x[i] for x in side] for side in (predicted, truth)), valid[i])
        for i in range(6)
    ]
    for i, sums in enumerate(images):
        for name, want in zip(("tp", "fp", "fn", "iou"), sums, strict=True):
            np.testing.assert_allclose(got.rows.values[name][i], want, rtol=1e-12)
    tp, fp, fn, iou = np.sum(images, axis=0)
    assert min(tp.sum(), fp.sum(), fn.sum()) > 3
    scores = got.compute()
    assert scores["pq/dog"] == pytest.approx((iou / (tp + fp / 2 + fn / 2))[2])
    assert scores["pq"] == pytest.approx((iou / (tp + fp / 2 + fn / 2)).mean())
    assert scores["rq"] == pytest.approx((tp / (tp + fp / 2 + fn / 2)).mean())
    assert scores["sq"] == pytest.approx((iou / tp).mean())
    for name in NAMES:
        parts = scores[f"sq/{name}"] * scores[f"rq/{name}"]
        assert scores[f"pq/{name}"] == pytest.approx(parts)
    assert got.per_image()["pq_per_image"][0] == pytest.approx(1)


def test_crowds_equal_the_papers_definition(rng):
    predicted, truth, valid = panoptic(rng)
    crowd = (truth[0] > 0) & (truth[1] % 3 == 1)
    batch = {"index": np.arange(6), "weight": np.ones(6)}
    got = metrics.Panoptic.from_batch(
        *(predicted, truth, valid, batch), classes=NAMES, crowd=crowd
    )
    plain = metrics.Panoptic.from_batch(predicted, truth, valid, batch, classes=NAMES)
    for i in range(6):
        sides = ([x[i] for x in side] for side in (predicted, truth))
        want = transcription(*sides, valid[i], crowd=crowd[i])
        for name, sums in zip(("tp", "fp", "fn", "iou"), want, strict=True):
            np.testing.assert_allclose(got.rows.values[name][i], sums, rtol=1e-12)
    assert got.rows.values["fn"].sum() < plain.rows.values["fn"].sum()


def test_only_a_crowd_of_its_own_class_excuses_a_segment():
    crowd, valid = np.ones((1, 1, 4), bool), np.ones((1, 1, 4), bool)
    cats = np.full((1, 1, 4), 1), np.ones((1, 1, 4), int)
    batch = {"index": np.zeros(1), "weight": np.ones(1)}
    for c, extra in ((1, 0), (2, 1)):
        predicted = np.full((1, 1, 4), c), np.full((1, 1, 4), 7)
        made = metrics.Panoptic.from_batch(
            *(predicted, cats, valid, batch), classes=NAMES, crowd=crowd
        )
        assert made.rows.values["fp"].sum() == extra
        assert made.rows.values["fn"].sum() == 0


def test_a_prediction_mostly_in_void_is_not_a_false_positive():
    truth = np.zeros((1, 1, 10), np.int32)
    predicted = np.zeros((1, 1, 10), np.int32)
    predicted[..., 2:8] = 1
    batch = {"index": np.zeros(1), "weight": np.ones(1)}
    for void, made_up in ((3, 1), (4, 0)):
        valid = np.ones((1, 1, 10), bool)
        valid[..., 2 : 2 + void] = False
        got = metrics.Panoptic.from_objects(predicted, truth, valid, batch)
        assert got.rows.values["fp"].item() == made_up
        want = 0 if made_up else np.nan
        np.testing.assert_equal(got.compute()["pq"], want)


def test_things_and_stuff_are_means_of_their_classes(rng):
    predicted, truth, valid = panoptic(rng)
    batch = {"index": np.arange(6), "weight": np.ones(6)}
    made = metrics.Panoptic.from_batch(
        predicted, truth, valid, batch, classes=NAMES, things=("cat", "dog")
    )
    scores = made.merge(made).compute()
    for score in ("pq", "sq", "rq"):
        cat, dog = scores[f"{score}/cat"], scores[f"{score}/dog"]
        assert scores[f"{score}_things"] == pytest.approx((cat + dog) / 2)
        assert scores[f"{score}_stuff"] == scores[f"{score}/sky"]
    with pytest.raises(ValueError, match="things needs names from classes, got cow"):
        metrics.Panoptic.from_batch(
            predicted, truth, valid, batch, classes=NAMES, things=("cow",)
        )


def test_empty_sides():
    ids = np.zeros((3, 4, 4), np.int32)
    predicted, truth = ids.copy(), ids.copy()
    predicted[0, :2] = truth[1, :2] = 7
    batch = {"index": np.arange(3), "weight": np.ones(3)}
    got = metrics.Panoptic.from_objects(predicted, truth, ids == 0, batch)
    for name in ("pq", "sq", "rq"):
        per_image = got.per_image()[f"{name}_per_image"]
        np.testing.assert_array_equal(per_image, [0, 0, np.nan])
        assert got.compute()[name] == 0
