"""Transforms of prediction functions, against predictions of the whole image."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import inference, models
from segjax.forward import Forward, make_forward
from segjax.inference import members, transforms
from segjax.inference.model import Model

SIZES = [(1, 1), (1, 9), (16, 16), (17, 40), (61, 33)]
NONE = np.zeros((1, 1, 1, 1), np.uint8)
OVERLAPS = [0.0, 0.25, 0.5, 0.9]


def images_of(*size, batch=1, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, *size, channels)).astype(np.uint8)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return (x / x.sum(-1, keepdims=True)).astype(np.float32)


def pointwise(images):
    x = images.astype(np.float32) / 255
    return softmax(np.stack([x[..., 0], x[..., 1] * 2, 1 - x[..., 0]], -1))


def constant(images):
    return np.broadcast_to(np.float32([0.2, 0.8]), (*images.shape[:3], 2)).copy()


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("predict", [constant, pointwise])
def test_tiles_and_turns_of_a_pointwise_model_equal_the_whole(predict, overlap):
    for size in SIZES:
        for window in (inference.gaussian_window, inference.constant_window):
            tiled = inference.sliding_window(
                predict, tile=16, overlap=overlap, window=window, batch_size=3
            )
            images = images_of(*size, batch=2)
            for function in (tiled, inference.tta(tiled)):
                np.testing.assert_allclose(
                    function(images), predict(images), atol=1e-5, rtol=0
                )


def test_a_large_size():
    images = images_of(1000, 333)
    tiled = inference.sliding_window(inference.tta(pointwise), tile=128, overlap=0.3)
    np.testing.assert_allclose(tiled(images), pointwise(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 100, 1000])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_tiles_cover_every_pixel_and_overlap(length, overlap):
    starts = inference.windows.tile_starts(length, 16, overlap)
    covered = np.zeros(max(length, 16), bool)
    for start in starts:
        covered[start : start + 16] = True
    assert covered.all()
    assert starts[0] == 0
    assert starts[-1] < length <= max(starts[-1] + 16, 16)
    assert all(16 - b + a >= int(16 * overlap) for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("overlap", [0.0, 0.125, 0.3, 0.5, 0.8])
def test_tiles_lie_on_the_grid_of_a_network_that_pools(overlap):
    """Each tile begins at a multiple of 4, so pooling by 4 equals that of the image."""

    def pooled(images):
        tiles = images.reshape(len(images), -1, 4, images.shape[2] // 4, 4, 3)
        maxima = tiles.max(axis=(2, 4), keepdims=True)
        return np.broadcast_to(maxima, tiles.shape).reshape(images.shape) / 255

    image = images_of(100, 76, channels=3)
    tiled = inference.sliding_window(pooled, tile=32, overlap=overlap)
    np.testing.assert_allclose(tiled(image), pooled(image), atol=1e-6, rtol=0)


def test_tiles_have_one_shape():
    shapes = set()

    def predict(images):
        shapes.add(images.shape)
        return pointwise(images)

    for size in SIZES:
        inference.sliding_window(predict, tile=16, overlap=0.25, batch_size=4)(
            images_of(*size)
        )
    assert shapes == {(4, 16, 16, 2)}


def test_a_convolution_differs_only_where_tiles_end():
    """Pixels farther than its radius from every border of a tile are exact."""

    def blurred(images):
        x = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
        return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]

    images = images_of(48, 48)
    whole = blurred(images)
    errors = {}
    for overlap in (0.0, 0.5):
        tiled = inference.sliding_window(blurred, tile=16, overlap=overlap)(images)
        errors[overlap] = np.abs(tiled - whole).max(-1)[0]
    wrong = errors[0.0] > 1e-3
    inner = np.zeros(48, bool)
    inner[[15, 16, 31, 32]] = True
    np.testing.assert_array_equal(wrong, (inner[:, None] | inner[None, :]) & wrong)
    assert wrong[:, 15].all()
    # A Gaussian window weighs borders of tiles little where another tile has a center.
    assert errors[0.5].max() < 0.02 * errors[0.0].max()


def test_turns_are_inverted_exactly():
    images = images_of(3, 5)
    assert len(set(transforms.DIHEDRAL)) == 8
    seen = []
    for transform in transforms.DIHEDRAL:
        made = transform.apply(images)
        want = np.rot90(
            images[:, :, ::-1] if transform.mirror else images, transform.turns, (1, 2)
        )
        np.testing.assert_array_equal(made, want)
        np.testing.assert_array_equal(transform.invert(made), images)
        seen.append(made.tobytes() + bytes(made.shape[1:2]))
    assert len(set(seen)) == 8
    with pytest.raises(ValueError, match="0, 1, 2 or 3, got 4"):
        inference.Dihedral(4)


def test_tta_averages_what_the_turned_images_give():
    """A function of the place: the mean over eight turns is symmetric."""

    def ramp(images):
        rows = np.linspace(0, 1, images.shape[1], dtype=np.float32)
        return np.broadcast_to(rows[None, :, None, None], (*images.shape[:3], 1))

    images = images_of(4, 6)
    np.testing.assert_allclose(inference.tta(ramp)(images), 0.5, atol=1e-6)
    flips = inference.tta(ramp, transforms=inference.FLIPS[:2])
    np.testing.assert_allclose(flips(images), ramp(images), atol=1e-6)


def test_scales_resize_images_and_probabilities():
    """A linear image stays linear, and the result has the image's size."""
    ramp = np.broadcast_to(
        np.linspace(0, 1, 32, dtype=np.float32)[None, None, :, None], (1, 8, 32, 1)
    )
    sizes = []

    def identity(images):
        sizes.append(images.shape[1:3])
        return images

    got = inference.tta(
        identity, transforms=inference.FLIPS[:1], scales=(0.5, 1.0, 2.0)
    )(ramp)
    assert sizes == [(4, 16), (8, 32), (16, 64)]
    np.testing.assert_allclose(got[:, :, 2:-2], ramp[:, :, 2:-2], atol=1e-6)
    want = jax.image.resize(ramp, (1, 13, 17, 1), "linear", antialias=False)
    np.testing.assert_allclose(transforms._resize(ramp, (13, 17)), want, atol=1e-6)
    for bad in ({"transforms": ()}, {"scales": (0.0,)}):
        with pytest.raises(ValueError, match="scales above 0"):
            inference.tta(identity, **bad)


def test_temperature_divides_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4, 5, 3)).astype(np.float32) * 4
    got = inference.temperature(lambda _: softmax(logits), 2.5)(NONE)
    np.testing.assert_allclose(got, softmax(logits / 2.5), atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-logits))
    got = inference.temperature(lambda _: sigmoid, 0.5, multilabel=True)(NONE)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-2 * logits)), atol=1e-5)
    certain = np.float32([[[[1, 0, 0]]]])
    for multilabel in (False, True):
        got = inference.temperature(lambda _: certain, 0.01, multilabel=multilabel)
        np.testing.assert_allclose(got(NONE), certain, atol=1e-6)
    with pytest.raises(ValueError, match="above 0, got 0"):
        inference.temperature(constant, 0.0)


def test_entropy_and_disagreement_by_hand():
    half, sure, other = (np.float32([[[p]]]) for p in ([0.5, 0.5], [1, 0], [0, 1]))
    entropy = inference.entropy(lambda _: half)(NONE)
    np.testing.assert_allclose(entropy, 1, atol=1e-6)
    assert inference.entropy(lambda _: sure)(NONE) == 0
    agreed = inference.disagreement([lambda _: half] * 2)(NONE)
    np.testing.assert_allclose(agreed, 0, atol=1e-6)
    split = inference.disagreement([lambda _: sure, lambda _: other])(NONE)
    np.testing.assert_allclose(split, 1, atol=1e-6)
    # Sigmoids: one class certain, one at one half.
    mixed = np.float32([[[1.0, 0.5]]])
    got = inference.entropy(lambda _: mixed, multilabel=True)(NONE)
    np.testing.assert_allclose(got, 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="two members, got 1"):
        inference.disagreement([constant])


def test_composed_in_any_order():
    images = images_of(20, 23)
    one = inference.ensemble([pointwise, lambda x: pointwise(255 - x)])
    for made in (
        inference.entropy(inference.sliding_window(inference.tta(one), tile=8)),
        inference.sliding_window(inference.entropy(inference.tta(one)), tile=8),
        inference.tta(inference.sliding_window(inference.entropy(one), tile=8)),
    ):
        np.testing.assert_allclose(
            made(images), transforms.pixel_entropy(one(images)), atol=1e-5
        )


def trained(folder, seed, module, **facts):
    """A model without a file."""
    image = np.zeros((1, 16, 16, 2), np.float32)
    variables = jax.jit(module.init)(jax.random.key(seed), image)
    about = {
        "classes": ["a", "b", "c"],
        "task": "semantic",
        "image": {"channels": 2, "dtype": "uint8"},
        "multiple": 8,
        "max_shapes": 4,
    } | facts
    forward = Forward(module)
    return Model(
        folder=folder,
        forward=forward,
        variables=variables,
        description=about,
        _predictor=inference.make_predictor(forward, variables, multiple=8),
        _build=lambda folder: None,
    )


def test_models_of_one_network_share_a_program(tmp_path):
    module = models.SimpleCNN(num_classes=3, width=4)
    trio = [trained(tmp_path, seed, module) for seed in range(3)]
    images = images_of(16, 24)
    each = [np.asarray(model.probabilities(images)) for model in trio]
    got = inference.model_ensemble(trio)(images)
    np.testing.assert_allclose(got, np.mean(each, 0), atol=1e-6)
    both = inference.model_ensemble(trio, disagreement=True)
    assert isinstance(both, members.PlannedFn)
    both = both(images)
    np.testing.assert_allclose(both[..., :3], np.mean(each, 0), atol=1e-6)
    want = inference.disagreement([m.probabilities for m in trio])(images)
    np.testing.assert_allclose(both[..., 3:], want, atol=1e-5)
    assert want.max() > 1e-3
    hot = inference.model_ensemble(trio[:1], temperatures=[3.0])(images)
    cold = inference.temperature(trio[0].probabilities, 3.0)(images)
    np.testing.assert_allclose(hot, cold, atol=1e-5)


def test_models_of_several_networks(tmp_path):
    pair = [
        trained(tmp_path, 0, models.SimpleCNN(num_classes=3, width=4)),
        trained(tmp_path, 0, models.SimpleCNN(num_classes=3, width=6)),
    ]
    images = images_of(16, 24)
    got = inference.model_ensemble(pair, disagreement=True)(images)
    want = inference.ensemble([m.probabilities for m in pair])(images)
    np.testing.assert_allclose(got[..., :3], want, atol=1e-6)
    other = trained(tmp_path, 0, models.SimpleCNN(num_classes=2), classes=["a", "b"])
    with pytest.raises(ValueError, match="classes differ"):
        inference.model_ensemble([pair[0], other])
    with pytest.raises(ValueError, match="disagreement two, got 1"):
        inference.model_ensemble(pair[:1], disagreement=True)
    with pytest.raises(ValueError, match="each of 2 models, got 1"):
        inference.model_ensemble(pair, temperatures=[1.0])
    with pytest.raises(ValueError, match=r"needs images \[B, H, W, K\]"):
        pair[0].probabilities(images[0])


def test_planned_sizes_do_not_depend_on_the_other_images():
    shapes = []

    class Seen:
        def apply(self, variables, image, **options):
            shapes.append(image.shape[1:3])
            return jnp.zeros((*image.shape[:3], 2))

    sizes = [(8 * i + 1, 8 * i + 1) for i in range(8)]
    for order in (sizes, sizes[::-3]):
        shapes.clear()
        predictor = inference.make_predictor(
            make_forward(Seen()), {}, multiple=8, max_shapes=2
        )
        predictor.plan(sizes)
        for size in order:
            (made,) = predictor.batch(np.zeros((1, *size, 1), np.uint8))
            assert made.shape[:2] == size
        assert len(set(shapes)) == 2
        seen = set(shapes)
    assert seen == set(shapes)


def test_messages():
    for options in ({"tile": 0}, {"overlap": 1.0}, {"overlap": -0.1}):
        with pytest.raises(ValueError, match="sliding_window needs a tile"):
            inference.sliding_window(constant, **options)
    with pytest.raises(ValueError, match="at least one image"):
        inference.sliding_window(constant)(images_of(3, 3)[:0])
    with pytest.raises(ValueError, match="got none"):
        inference.ensemble([])
    assert dataclasses.is_dataclass(inference.Dihedral)
