"""Instances by a seeded watershed."""

import numpy as np
import pytest
import scipy.ndimage

from segjax import inference, metrics


def two_disks(gap=9):
    """Two disks of radius 6 that touch: truth [H, W], distance to the boundary."""
    y, x = np.mgrid[:20, :36]
    disks = [(y - 10) ** 2 + (x - cx) ** 2 <= 36 for cx in (11, 11 + gap)]
    truth = np.where(disks[0], 1, np.where(disks[1], 2, 0))
    parts = [scipy.ndimage.distance_transform_edt(truth == i) for i in (1, 2)]
    return truth, np.maximum(*parts), (truth > 0).astype(float)


def same_partition(a, b):
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len(set(a.ravel().tolist())) == len(set(b.ravel().tolist()))


def test_touching_objects_are_separated():
    truth, distance, foreground = two_disks()
    assert scipy.ndimage.label(foreground)[1] == 1
    settings = inference.Watershed(seed_threshold=3.0)
    got = inference.instances(distance, foreground, settings)
    assert got.dtype == np.int32
    match = metrics.Matching.from_batch
    matched = metrics.of_id_maps(match, [got], [truth]).compute()
    assert matched["tp@0.75"] == 2
    assert matched["fp@0.75"] == 0
    np.testing.assert_array_equal(got > 0, truth > 0)


def test_the_border_class_separates_and_is_filled():
    truth, distance, _ = two_disks()
    inside, border = (distance > 2).astype(float), (truth > 0) & (distance <= 2)
    got = inference.instances(inside, inside + border)
    assert got.max() == 2
    np.testing.assert_array_equal(got > 0, truth > 0)


def test_small_seeds_and_instances_are_removed():
    interior = np.zeros((10, 20))
    interior[2:6, 2:6] = 1
    interior[2:4, 10:12] = 1
    interior[8, 18] = 1
    foreground = interior.copy()
    foreground[7:, 15:] = 1
    for settings, areas in (
        ({}, [16, 4, 15]),
        ({"min_seed_area": 2}, [16, 4]),
        ({"min_area": 5}, [16, 15]),
        ({"foreground_threshold": 1.0}, []),
    ):
        got = inference.instances(interior, foreground, inference.Watershed(**settings))
        assert np.bincount(got.ravel())[1:].tolist() == areas


def test_settings_are_chosen_by_the_score():
    _, distance, foreground = two_disks()
    grid = [inference.Watershed(seed_threshold=t) for t in (0.5, 3.0, 4.0, 50.0)]

    def score(ids):
        return -abs(int(ids[0].max()) - 2)

    best, value = inference.best_settings([(distance, foreground)], score, grid)
    assert best == grid[1]
    assert value == 0
    with pytest.raises(ValueError, match="got 0 and 4"):
        inference.best_settings([], score, grid)


def test_metric_of_separated_objects():
    truth, distance, foreground = two_disks()
    logits = np.stack([1 - foreground, distance > 2, foreground * (distance <= 2)], -1)
    logits = (20 * logits[None]).astype(np.float32)
    batch = {
        "instances": truth[None].astype(np.int32),
        "valid": np.ones((1, *truth.shape), bool),
        "index": np.zeros(1, np.int32),
        "weight": np.ones(1, np.float32),
    }

    def separate(probs):
        return inference.instances(probs[..., 1], probs[..., 1] + probs[..., 2])

    match = metrics.Matching.from_batch
    together = metrics.objects(match)(logits, batch).compute()
    apart = metrics.objects(match, separate=separate)(logits, batch).compute()
    assert apart["tp@0.50"] == 2
    assert apart["dsb2018_score@0.50"] == 1
    assert together["dsb2018_score@0.50"] < 1


def test_messages(without):
    with pytest.raises(ValueError, match=r"two maps \[H, W\] of one shape"):
        inference.instances(np.zeros((3, 3)), np.zeros((3, 4)))
    without("skimage")
    with pytest.raises(ValueError, match=r'pip install "segjax\[instances\]"'):
        inference.instances(np.zeros((3, 3)), np.zeros((3, 3)))
