"""Detections in tiles, turned and of ensembles, against those of the whole image."""

import numpy as np
import pytest
import scipy.ndimage

from segjax import inference
from segjax.inference import objects as objects_lib


def blobs(height, width, *, seed=0, side=7, tries=400):
    """Rectangles that do not touch, as an image [H, W, 1] of two gray values."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.uint8)
    for _ in range(tries):
        h, w = rng.integers(2, side + 1, 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        y0, x0 = max(y - 1, 0), max(x - 1, 0)
        if not image[y0 : y + h + 1, x0 : x + w + 1].any():
            image[y : y + h, x : x + w] = rng.choice([100, 200])
    return image[..., None]


def components(images):
    """A perfect detector: the score of a component grows with its area."""
    made = []
    for image in np.asarray(images):
        ids, _ = scipy.ndimage.label(image[..., 0] > 0)
        found = objects_lib.from_ids(ids)
        classes = [
            int(image[y : y + m.shape[0], x : x + m.shape[1], 0][m].max()) // 100
            for m, (y, x) in zip(found.masks, found.corners, strict=True)
        ]
        made.append(
            objects_lib.from_ids(
                ids,
                classes=dict(enumerate(classes, 1)),
                scores={i: 0.5 + a / 200 for i, a in enumerate(found.areas, 1)},
            )
        )
    return made


def as_set(found):
    return {
        (tuple(c), tuple(b), int(k), round(float(s), 5), m.shape, m.tobytes())
        for m, c, b, k, s in zip(
            found.masks,
            found.corners.tolist(),
            found.boxes.tolist(),
            found.classes,
            found.scores,
            strict=True,
        )
    }


@pytest.mark.parametrize("size", [(9, 12), (40, 32), (70, 101)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_tiles_give_the_objects_of_the_whole(size, overlap):
    """Where neighbors share at least the size of an object."""
    images = np.stack([blobs(*size, seed=i) for i in range(2)])
    whole = components(images)
    detect = inference.sliding_window_objects(
        components, tile=32, overlap=overlap, batch_size=3
    )
    for got, want in zip(detect(images), whole, strict=True):
        assert len(got) == len(want) > 0
        assert got.size == size
        assert as_set(got) == as_set(want)
        assert (np.diff(got.scores) <= 0).all()


def test_every_turn_gives_the_objects_of_the_image():
    images = blobs(30, 41)[None]
    (want,) = components(images)
    for transform in inference.DIHEDRAL:
        (got,) = inference.tta_objects(components, transforms=[transform])(images)
        assert as_set(got) == as_set(want)
    (got,) = inference.tta_objects(components)(images)
    assert as_set(got) == as_set(want)
    both = inference.sliding_window_objects(
        inference.tta_objects(components), tile=24, overlap=0.4
    )
    (got,) = both(images)
    assert as_set(got) == as_set(want)
    (got,) = inference.ensemble_objects([components, components])(images)
    assert as_set(got) == as_set(want)


def test_merging_by_hand():
    masks = np.zeros((4, 4, 8), bool)
    masks[0, :, :4] = True  # 16 pixels, score 0.6.
    masks[1, :, :5] = True  # IoU 0.8 with the first, better.
    masks[2, :, 3:5] = True  # Inside the second: IoU 0.4.
    masks[3, :, :5] = True  # Of another class.
    found = objects_lib.from_masks(
        masks,
        scores=np.array([0.6, 0.9, 0.5, 0.4]),
        classes=np.array([1, 1, 1, 2]),
    )
    got = inference.merge_objects([found])
    np.testing.assert_allclose(got.scores, [0.9, 0.5, 0.4])
    cut = np.array([False, False, True, False])
    got = inference.merge_objects([found], is_cut=cut)
    np.testing.assert_allclose(got.scores, [0.9, 0.4])
    # Cut objects are last, whatever their score.
    got = inference.merge_objects([found], is_cut=np.array([False, True, True, True]))
    np.testing.assert_allclose(got.scores, [0.6, 0.5, 0.4])
    # Parts of one image are merged as one list.
    parts = [found.take([0]), found.take([1, 2, 3])]
    np.testing.assert_allclose(inference.merge_objects(parts).scores, [0.9, 0.5, 0.4])


def test_objects_keep_their_masks():
    rng = np.random.default_rng(0)
    masks = rng.random((5, 11, 13)) < 0.2
    masks[3] = False
    found = objects_lib.from_masks(masks, boxes=np.ones((5, 4), np.float32))
    assert found.masks[3].shape == (0, 0)
    np.testing.assert_array_equal(found.areas, masks.sum((1, 2)))
    want = np.zeros((11, 13), int)
    for number in range(5, 0, -1):
        want[masks[number - 1]] = number
    np.testing.assert_array_equal(found.id_map(), want)
    ids = np.array([[0, 7, 7], [70_000, 0, 7]])
    found = objects_lib.from_ids(ids, classes={7: 2, 70_000: 3})
    np.testing.assert_array_equal(found.classes, [2, 3])
    np.testing.assert_array_equal(found.boxes, [[1, 0, 3, 2], [0, 1, 1, 2]])
    np.testing.assert_array_equal(found.id_map(), [[0, 1, 1], [2, 0, 1]])
    assert len(objects_lib.from_ids(np.zeros((3, 3), int))) == 0


def test_no_objects():
    nothing = np.zeros((1, 50, 50, 1), np.uint8)
    for detect in (
        inference.sliding_window_objects(components, tile=32),
        inference.tta_objects(components),
        inference.ensemble_objects([components]),
    ):
        (got,) = detect(nothing)
        assert len(got) == 0
        assert got.size == (50, 50)
        assert got.boxes.shape == (0, 4)
    with pytest.raises(ValueError, match="got none"):
        inference.ensemble_objects([])
    with pytest.raises(ValueError, match="got none"):
        inference.tta_objects(components, transforms=())
