import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial.distance

from segjax import metrics
from tests.metrics import scenes

KEYS = ("hd", "hd95", "assd", "nsd", "boundary_f1")


def outline(mask):
    return mask & ~scipy.ndimage.binary_erosion(mask)


def brute_force(predicted, truth, tolerance=1.0, spacing=(1.0, 1.0), extent=None):
    """All pairs of outline pixels, in float64."""
    p, t = (np.argwhere(outline(m)) * np.array(spacing) for m in (predicted, truth))
    if extent is None:
        extent = np.hypot(*(np.array(truth.shape) - 1) * spacing)
    if not len(p) and not len(t):
        return dict.fromkeys(KEYS, np.nan)
    if not len(p) or not len(t):
        return dict.fromkeys(("hd", "hd95", "assd"), extent) | {
            "nsd": 0.0,
            "boundary_f1": 0.0,
        }
    pairs = scipy.spatial.distance.cdist(p, t)
    to_t, to_p = pairs.min(1), pairs.min(0)
    precision, recall = (to_t <= tolerance).mean(), (to_p <= tolerance).mean()
    total = len(p) + len(t)
    return {
        "hd": max(to_t.max(), to_p.max()),
        "hd95": max(np.percentile(to_t, 95), np.percentile(to_p, 95)),
        "assd": (to_t.sum() + to_p.sum()) / total,
        "nsd": ((to_t <= tolerance).sum() + (to_p <= tolerance).sum()) / total,
        "boundary_f1": (
            2 * precision * recall / (precision + recall) if precision + recall else 0.0
        ),
    }


def _masks(rng, count, size):
    predicted, truth = (scenes.blobs(rng, (count, *size)) for _ in range(2))
    predicted[0], truth[0] = False, False  # Both are empty.
    predicted[1], truth[2] = False, False  # One is empty.
    predicted[3] = truth[3]
    predicted[4] = True
    truth[5] = False
    truth[5, 0, 0] = True  # One pixel, in the corner.
    return predicted, truth


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 1), (17, 23), (40, 31)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_equals_all_pairs(rng, size, spacing):
    predicted, truth = _masks(rng, 16, size)
    options = {"tolerance": 1.5, "spacing": spacing}
    got = jax.jit(lambda p, t: metrics.surface_scores(p, t, **options))(
        predicted, truth
    )
    for i in range(16):
        want = brute_force(predicted[i], truth[i], **options)
        for key in KEYS:
            np.testing.assert_allclose(
                got[key][i], want[key], rtol=1e-5, atol=1e-6, err_msg=f"{key} of {i}"
            )


def test_outline_equals_erosion(rng):
    masks, _ = _masks(rng, 8, (9, 14))
    for mask in masks:
        np.testing.assert_array_equal(metrics.outline(mask), outline(mask))


def test_tolerance_is_inclusive():
    # Two outlines sqrt(2) * 3 apart: not within 4.2, within their distance itself.
    predicted, truth = np.zeros((2, 8, 8), bool)
    predicted[1, 1] = truth[4, 4] = True
    for tolerance, share in ((4.2, 0.0), (18**0.5, 1.0)):
        score = functools.partial(metrics.surface_scores, tolerance=tolerance)
        got = jax.jit(score)(predicted, truth)
        assert got["nsd"] == got["boundary_f1"] == share
        assert got["hd"] == pytest.approx(18**0.5)


def test_metric_equals_brute_force_over_classes_and_images(rng):
    logits, batch = scenes.batch(rng, examples=4)
    batch["label"][1] = 0
    batch["valid"][2, :, 5:] = False
    batch["valid"][3] = False
    got = jax.jit(metrics.surface(scenes.NAMES))(logits, batch)
    per_image = got.per_image()
    predicted = logits.argmax(-1)
    means = {key: [] for key in KEYS}
    for i in range(4):
        valid = batch["valid"][i]
        box = np.ptp(np.argwhere(valid), axis=0) if valid.any() else (0, 0)
        rows = []
        for c, name in ((1, "cat"), (2, "dog")):
            sides = (x & valid for x in (predicted[i] == c, batch["label"][i] == c))
            rows.append(brute_force(*sides, extent=np.hypot(*box)))
            for key in KEYS:
                np.testing.assert_allclose(
                    per_image[f"{key}_per_image/{name}"][i], rows[-1][key], rtol=1e-5
                )
        for key in KEYS:
            seen = [row[key] for row in rows if not np.isnan(row[key])]
            means[key] += [np.mean(seen)] if seen else []
    scores = got.compute()
    for key in KEYS:
        want = np.mean(means[key])
        assert scores[f"mean_{key}_per_image"] == pytest.approx(want, rel=1e-5)


def test_messages(rng):
    mask = jnp.ones((3, 3), bool)
    with pytest.raises(
        ValueError, match=r"tolerance needs a distance of at least 0.* got -1\.0"
    ):
        metrics.surface_scores(mask, mask, tolerance=-1.0)
    with pytest.raises(ValueError, match="needs a class besides the background"):
        metrics.surface(["background"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_integer_masks_equal_boolean_masks(dtype, rng):
    one, two = rng.random((2, 3, 12, 9)) < 0.4
    want = metrics.surface_scores(one, two)
    got = metrics.surface_scores(one.astype(dtype), 255 * two.astype(dtype))
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert float(metrics.surface_scores(one.astype(dtype), one)["hd"].max()) == 0
    np.testing.assert_array_equal(
        metrics.mask_to_boundary(one.astype(dtype), width=1),
        metrics.mask_to_boundary(one, width=1),
    )


def _brute_force_of_volumes(predicted, truth, spacing):
    """All pairs of outline voxels, in float64."""
    p, t = (np.argwhere(outline(m)) * np.array(spacing) for m in (predicted, truth))
    pairs = scipy.spatial.distance.cdist(p, t)
    return pairs.min(1), pairs.min(0)


def test_volumes_equal_all_pairs(rng):
    spacing = (2.0, 0.5, 1.0)
    predicted, truth = (scenes.blobs(rng, (3, 20, 9)).reshape(3, 4, 5, 9) for _ in "pt")
    options = {"tolerance": 1.0, "spacing": spacing}
    got = metrics.surface_scores(predicted, truth, **options)
    directed = metrics.directed_surface_scores(predicted, truth, **options)
    for i in range(3):
        sides = _brute_force_of_volumes(predicted[i], truth[i], spacing)
        both = np.concatenate(sides)
        within = [np.mean(side <= 1) for side in sides]
        want = {
            "hd": both.max(),
            "hd95": max(np.percentile(side, 95) for side in sides),
            "assd": both.mean(),
            "nsd": np.mean(both <= 1),
            "boundary_f1": 2 * np.prod(within) / sum(within),
        }
        for key, value in want.items():
            np.testing.assert_allclose(got[key][i], value, rtol=1e-5, err_msg=key)
        for name, side in zip(("predicted", "truth"), sides, strict=True):
            want = {
                "hd": side.max(),
                "hd95": np.percentile(side, 95),
                "asd": side.mean(),
                "within": np.mean(side <= 1),
            }
            for key, value in want.items():
                found = directed[f"{key}_from_{name}"][i]
                np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=key)


def test_directed_scores_of_empty_masks(rng):
    predicted, truth = _masks(rng, 6, (5, 6))
    got = metrics.directed_surface_scores(predicted, truth)
    for key, values in got.items():
        assert np.isnan(values[0]), key
        worst = 0 if key.startswith("within") else np.hypot(4, 5)
        np.testing.assert_allclose(values[1:3], worst, rtol=1e-6, err_msg=key)


def test_lengths_by_hand():
    # A square of 2x3 pixels: sides 1 and 2 between half diagonals at the corners.
    mask = np.zeros((6, 7), bool)
    mask[2:4, 2:5] = True
    moved = np.roll(mask, 1, axis=1)
    far = metrics.surface_scores_by_length(mask, moved, tolerance=0.5)
    length = 2 * (1 + 2) + 4 * np.sqrt(0.5)
    # The two vertical sides, of length 1 and two corners each, moved by one pixel; the
    # ends of the others too.
    near = 2 * 2 + 2 * np.sqrt(0.5)
    np.testing.assert_allclose(far["nsd"], near / length, rtol=1e-6)
    assert metrics.surface_scores_by_length(mask, mask)["nsd"] == 1
    assert metrics.surface_scores_by_length(mask, mask)["assd"] == 0


def test_lengths_of_empty_masks(rng):
    predicted, truth = _masks(rng, 6, (5, 6))
    got = metrics.surface_scores_by_length(predicted, truth)
    assert np.isnan([got["assd"][0], got["nsd"][0]]).all()
    np.testing.assert_allclose(got["assd"][1:3], np.hypot(4, 5), rtol=1e-6)
    np.testing.assert_array_equal(got["nsd"][1:3], 0)
    with pytest.raises(ValueError, match="Use surface_scores for volumes"):
        metrics.surface_scores_by_length(predicted, truth, spacing=(1.0, 1.0, 1.0))
