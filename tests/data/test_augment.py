import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segjax.data import augment
from segjax.data.augment import color, jpeg, warp

SIZE = 24
SPATIAL = {
    "horizontal_flip": augment.horizontal_flip,
    "vertical_flip": augment.vertical_flip,
    "rotate90": augment.rotate90,
    "scale_and_crop": augment.scale_and_crop(),
    "rotate": augment.rotate(degrees=180.0),
    "elastic": augment.elastic(sigma=3.0),
}
PIXELWISE = {
    "color_jitter": augment.color_jitter(),
    "exposure": augment.exposure(),
    "gamma": augment.gamma(),
    "gaussian_noise": augment.gaussian_noise(),
    "gaussian_blur": augment.gaussian_blur(),
    "jpeg_artifacts": augment.jpeg_artifacts(),
}
ALL = SPATIAL | PIXELWISE
IDENTITY = {
    "scale_and_crop": augment.scale_and_crop(minimum=1.0, maximum=1.0),
    "rotate": augment.rotate(degrees=0.0),
    "elastic": augment.elastic(sigma=0.0),
    "color_jitter": augment.color_jitter(brightness=0.0, contrast=0.0, saturation=0.0),
    "exposure": augment.exposure(minimum=0.0, maximum=0.0),
    "gamma": augment.gamma(minimum=1.0, maximum=1.0),
    "gaussian_noise": augment.gaussian_noise(sigma=0.0),
    "gaussian_blur": augment.gaussian_blur(sigma=0.0),
    "compose": augment.compose(),
    "sometimes": augment.sometimes(0.0, augment.gaussian_noise(sigma=1.0)),
}


def ramp(size=(SIZE, SIZE)):
    """Channels 0 and 1 and the label encode the pixel's position, above 0."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows + 1, columns + 1, np.full(size, 32)], -1) / 64
    return {
        "image": image.astype(np.float32),
        "label": (rows * size[1] + columns).astype(np.int32),
        "valid": np.ones(size, bool),
        "weight": np.float32(1),
    }


def random_example(rng, size=(SIZE, SIZE)):
    return {
        "image": rng.random((*size, 3), np.float32),
        "label": rng.integers(0, 5, size).astype(np.int32),
        "valid": rng.random(size) < 0.9,
    }


@functools.cache
def compiled(name):
    return jax.jit(ALL[name])


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", SPATIAL)
def test_image_label_and_valid_move_together(name, seed):
    out = compiled(name)(jax.random.key(seed), ramp())
    image, valid = np.asarray(out["image"]), np.asarray(out["valid"])
    np.testing.assert_array_equal(image.any(-1), valid)
    np.testing.assert_array_equal(np.asarray(out["label"])[~valid], 0)
    assert valid.mean() > 0.2
    # Bilinear interpolation is exact on a ramp, so values are source coordinates.
    rows, columns = np.moveaxis(image[..., :2] * 64 - 1, -1, 0)
    read = np.stack([rows, columns], -1)[valid]
    label = np.stack(np.divmod(out["label"], SIZE), -1)[valid]
    assert np.abs(read - label).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(image[..., 2], 0.5 * valid, atol=1e-6)


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_augmentations_change_something(name):
    outs = [compiled(name)(jax.random.key(s), ramp())["image"] for s in range(8)]
    assert len({np.asarray(x).tobytes() for x in outs}) > 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", ALL)
def test_ranges_shapes_and_types_stay(name, seed):
    example = random_example(np.random.default_rng(seed))
    out = compiled(name)(jax.random.key(seed), example)
    for field, x in example.items():
        assert out[field].shape == x.shape
        assert out[field].dtype == x.dtype
    assert np.asarray(out["image"]).min() >= 0
    assert np.asarray(out["image"]).max() <= 1 + 1e-6
    assert set(np.unique(out["label"])) <= set(range(5))


@pytest.mark.parametrize("name", PIXELWISE)
def test_color_augmentations_keep_the_label(rng, name):
    example = random_example(rng)
    out = compiled(name)(jax.random.key(1), example)
    np.testing.assert_array_equal(out["label"], example["label"])
    np.testing.assert_array_equal(out["valid"], example["valid"])
    assert np.abs(out["image"] - example["image"]).max() > 1e-3


@pytest.mark.parametrize("name", IDENTITY)
def test_strength_zero_is_the_identity(rng, name, key):
    example = random_example(rng)
    out = jax.jit(IDENTITY[name])(key, example)
    np.testing.assert_allclose(out["image"], example["image"], atol=1e-5)
    np.testing.assert_array_equal(out["label"], example["label"])
    np.testing.assert_array_equal(out["valid"], example["valid"])


@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("horizontal_flip", [lambda x: x, np.fliplr]),
        ("vertical_flip", [lambda x: x, np.flipud]),
        ("rotate90", [functools.partial(np.rot90, k=k) for k in range(4)]),
    ],
)
def test_every_outcome_is_numpys_and_equally_likely(rng, name, outcomes):
    example = random_example(rng)
    counts = np.zeros(len(outcomes))
    for seed in range(200):
        out = compiled(name)(jax.random.key(seed), example)
        hits = [np.array_equal(out["image"], f(example["image"])) for f in outcomes]
        assert sum(hits) == 1
        same(out, {k: outcomes[hits.index(True)](x) for k, x in example.items()})
        counts += hits
    assert counts.min() > 0.7 * 200 / len(outcomes)


def test_rotate90_needs_a_square(key):
    with pytest.raises(ValueError, match="square image, got 4x6"):
        augment.rotate90(key, ramp((4, 6)))


@pytest.mark.parametrize("name", sorted(SPATIAL.keys() - {"rotate90"}))
def test_oblong_images(name, key):
    out = jax.jit(SPATIAL[name])(key, ramp((10, 30)))
    assert out["image"].shape == (10, 30, 3)


@jax.jit
def zoomed(example, zoom, place):
    size = example["label"].shape
    return warp.resample(example, *warp.zoom_field(size, zoom, place))


@jax.jit
def rotated(example, angle):
    size = example["label"].shape
    return warp.resample(example, *warp.rotation_field(size, angle))


# Factors for which no source coordinate is exactly between two pixels.
@pytest.mark.parametrize("zoom", [0.61, 1.0, 1.73])
@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.3), (0.5, 1.0)])
def test_zoom_against_scipy(rng, zoom, place):
    example = random_example(rng, (9, 14))
    out = zoomed(example, jnp.float32(zoom), jnp.array(place))
    # The window of H / zoom pixels starts at this fraction of the rest.
    scale, size = 1 / zoom, np.array([9, 14])
    start = np.array(place) * (size - size * scale) + scale / 2 - 0.5
    inner = scipy.ndimage.affine_transform(
        np.ones((9, 14)), [scale, scale], start, order=0, mode="constant"
    )
    for channel in range(3):
        expected = scipy.ndimage.affine_transform(
            example["image"][..., channel].astype(np.float64),
            [scale, scale],
            start,
            order=1,
            mode="nearest",
        )
        where = inner.astype(bool)
        got = np.asarray(out["image"])[..., channel]
        np.testing.assert_allclose(got[where], expected[where], atol=1e-5)
    label = scipy.ndimage.affine_transform(
        example["label"], [scale, scale], start, order=0, mode="nearest"
    )
    np.testing.assert_array_equal(np.asarray(out["label"])[where], label[where])
    if zoom >= 1:
        assert where.mean() > 0.7


def test_zooming_out_shows_the_whole_image():
    ones = ramp() | {"valid": np.ones((SIZE, SIZE), bool)}
    augmentation = jax.jit(augment.scale_and_crop(minimum=0.5, maximum=0.5))
    for seed in range(5):
        out = augmentation(jax.random.key(seed), ones)
        assert abs(int(np.sum(out["valid"])) - (SIZE // 2) ** 2) <= SIZE


def test_zooming_in_shows_only_image():
    augmentation = jax.jit(augment.scale_and_crop(minimum=1.0, maximum=4.0))
    for seed in range(20):
        assert np.all(augmentation(jax.random.key(seed), ramp())["valid"])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_by_right_angles_is_rot90(rng, turns):
    example = random_example(rng)
    angle = jnp.float32(turns * np.pi / 2)
    out = rotated(example, angle)
    np.testing.assert_allclose(
        out["image"], np.rot90(example["image"], turns), atol=1e-4
    )
    np.testing.assert_array_equal(out["label"], np.rot90(example["label"], turns))


def test_rotation_against_scipy(rng):
    plane = rng.random((21, 21))
    example = ramp((21, 21)) | {"image": np.float32(np.stack([plane] * 3, -1))}
    out = rotated(example, jnp.float32(np.radians(30)))
    expected = scipy.ndimage.rotate(plane, 30, reshape=False, order=1)
    inner = np.s_[5:16, 5:16]
    np.testing.assert_allclose(out["image"][..., 0][inner], expected[inner], atol=1e-5)


def hermite(values, t):
    """Cubic interpolation; slopes are half the difference of the neighbors."""
    extended = np.concatenate([values[:1], values, values[-1:]])
    slopes = (extended[2:] - extended[:-2]) / 2
    i = min(int(t), len(values) - 2)
    s = t - i
    a, b = values[i : i + 2]
    return (
        a * (2 * s**3 - 3 * s**2 + 1)
        + slopes[i] * (s**3 - 2 * s**2 + s)
        + b * (3 * s**2 - 2 * s**3)
        + slopes[i + 1] * (s**3 - s**2)
    )


@pytest.mark.parametrize(("size", "grid"), [(17, 3), (32, 2), (9, 5), (4, 7)])
def test_bicubic_weights_against_hermite(rng, size, grid):
    values = rng.normal(size=grid)
    places = np.linspace(0, grid - 1, size)
    expected = [hermite(values, t) for t in places]
    got = warp.cubic_weights(size, grid) @ values
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_elastic_displacement():
    # On a ramp, values are source coordinates, so displacements can be measured. At the
    # center of the grid, they are Gaussian with the given deviation.
    size, sigma = 65, 3.0
    example = ramp((size, size))
    augmentation = jax.jit(augment.elastic(sigma=sigma))
    moves = []
    for seed in range(200):
        image = augmentation(jax.random.key(seed), example)["image"]
        moves.append(np.asarray(image)[32, 32, :2] * 64 - 33)
    assert abs(np.std(moves) - sigma) < 0.5  # Standard error 0.11.
    assert abs(np.mean(moves)) < 0.6
    assert abs(np.corrcoef(np.transpose(moves))[0, 1]) < 0.25


def test_elastic_is_the_coarse_field_in_between(key):
    size, sigma = 65, 2.0
    out = jax.jit(augment.elastic(sigma=sigma))(key, ramp((size, size)))
    knots = sigma * np.asarray(jax.random.normal(key, (2, 3, 3)))
    moves = np.moveaxis(np.asarray(out["image"])[..., :2] * 64 - 1, -1, 0)
    moves = moves - np.mgrid[:size, :size]
    for row, column in [(32, 32), (20, 40), (48, 17)]:
        for axis in (0, 1):
            lines = [hermite(knots[axis, i], column / 32) for i in range(3)]
            expected = hermite(np.array(lines), row / 32)
            np.testing.assert_allclose(moves[axis, row, column], expected, atol=1e-3)


def test_color_jitter_by_hand(rng, key):
    example = random_example(rng)
    draw = np.asarray(jax.random.uniform(key, (3,), minval=-1.0))
    bright, strong, vivid = 1 + draw * [0.1, 0.2, 0.3]
    luma = np.array([0.299, 0.587, 0.114])
    x = example["image"].astype(np.float64) * bright
    x = strong * x + (1 - strong) * (x @ luma).mean()
    x = vivid * x + (1 - vivid) * (x @ luma)[..., None]
    out = augment.color_jitter(brightness=0.1, contrast=0.2, saturation=0.3)
    np.testing.assert_allclose(out(key, example)["image"], np.clip(x, 0, 1), atol=1e-5)


def test_saturation_leaves_gray_images_gray(key):
    example = ramp() | {"image": np.full((SIZE, SIZE, 3), 0.25, np.float32)}
    jitter = jax.jit(augment.color_jitter(brightness=0.0, contrast=0.5, saturation=1.0))
    np.testing.assert_allclose(jitter(key, example)["image"], 0.25, atol=1e-6)


def test_exposure_is_a_factor_between_its_stops():
    example = ramp() | {"image": np.full((SIZE, SIZE, 3), 0.5, np.float32)}
    change = jax.jit(augment.exposure(minimum=-2.0, maximum=2.0))
    keys = map(jax.random.key, range(99))
    out = np.array([np.unique(change(key, example)["image"]).item() for key in keys])
    stops = np.log2(out / 0.5)
    assert -2 <= stops.min() < -1.9
    assert out.max() == 1  # Saturated from a factor of 2 up: in a quarter of them.
    assert 0.1 < np.mean(out == 1) < 0.4
    # A normalized image becomes what its normalized exposure is.
    unit = np.linspace(0, 1, SIZE * SIZE * 3, dtype=np.float32).reshape(SIZE, SIZE, 3)
    darker = jax.jit(augment.exposure(minimum=-1.0, maximum=-1.0))
    got = darker(jax.random.key(0), example | {"image": 2 * unit - 1})["image"]
    np.testing.assert_allclose(got, 2 * (unit / 2) - 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"minimum <= maximum, got 1\.0 and 0\.0"):
        augment.exposure(minimum=1.0, maximum=0.0)


def test_gamma_is_a_power_between_its_exponents(rng):
    example = ramp() | {"image": np.full((SIZE, SIZE, 3), 0.25, np.float32)}
    change = jax.jit(augment.gamma(minimum=0.5, maximum=2.0))
    keys = map(jax.random.key, range(99))
    out = np.array([np.unique(change(key, example)["image"]).item() for key in keys])
    logs = np.log2(np.log(out) / np.log(0.25))  # Of the exponents.
    assert -1 <= logs.min() < -0.9
    assert 0.9 < logs.max() <= 1
    assert abs(logs.mean()) < 0.15
    # An image of another range keeps its ends, and the order of its values.
    wide = rng.uniform(-3, 2, (SIZE, SIZE, 3)).astype(np.float32)
    got = np.asarray(change(jax.random.key(1), example | {"image": wide})["image"])
    assert (got.min(), got.max()) == pytest.approx((wide.min(), wide.max()), abs=1e-5)
    order = np.argsort(wide, axis=None)
    assert np.all(np.diff(got.ravel()[order]) >= -1e-6)
    for options in ({"minimum": 0.0}, {"minimum": 2.0, "maximum": 1.0}):
        with pytest.raises(ValueError, match="0 < minimum <= maximum"):
            augment.gamma(**options)


compressed = jax.jit(jpeg.compressed)


@pytest.mark.parametrize("quality", [5, 10, 30, 50, 75, 95])
@pytest.mark.parametrize("shape", [(64, 48, 3), (37, 50, 3), (64, 48, 1), (9, 20, 1)])
def test_jpeg_against_pillow(rng, shape, quality):
    smooth = scipy.ndimage.gaussian_filter(rng.random(shape), (2, 2, 0))
    pixels = np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))
    file = io.BytesIO()
    picture = Image.fromarray(pixels if shape[2] == 3 else pixels[..., 0])
    picture.save(file, "JPEG", quality=quality)
    want = np.asarray(Image.open(file), np.float32).reshape(shape)
    got = 255 * np.asarray(compressed(np.float32(pixels / 255), np.float32(quality)))
    lost = np.abs(want - pixels).mean()
    # Libjpeg computes with integers, so some coefficients round to another step.
    assert np.abs(got - want).mean() < max(0.3 * lost, 0.25)
    assert np.mean(np.abs(got - want) <= 1.01) > (0.75 if shape[2] == 3 else 0.9)
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.99


def test_jpeg_of_other_ranges_and_channels(rng, key):
    change = jax.jit(augment.jpeg_artifacts(minimum=90.0, maximum=90.0))
    smooth = scipy.ndimage.gaussian_filter(rng.random((SIZE, SIZE, 5)), (3, 3, 0))
    unit = np.float32((smooth - smooth.min()) / np.ptp(smooth))
    want = change(key, ramp() | {"image": unit})["image"]
    for k in range(5):
        alone = change(key, ramp() | {"image": unit[..., k : k + 1]})["image"]
        np.testing.assert_allclose(alone[..., 0], want[..., k], atol=1e-6)
    wide = change(key, ramp() | {"image": 500 * unit - 200})["image"]
    np.testing.assert_allclose(wide, 500 * want - 200, atol=2.1)  # One level of 255.
    qualities = jax.jit(augment.jpeg_artifacts(minimum=5.0, maximum=95.0))
    lost = [
        np.abs(qualities(jax.random.key(s), ramp() | {"image": unit})["image"] - unit)
        for s in range(20)
    ]
    assert len({round(float(x.mean()), 6) for x in lost}) > 10
    for options in ({"minimum": 0.5}, {"maximum": 101.0}, {"minimum": 96.0}):
        with pytest.raises(ValueError, match="1 <= minimum <= maximum <= 100"):
            augment.jpeg_artifacts(**options)


def test_noise_has_at_most_the_given_deviation():
    example = ramp() | {"image": np.full((SIZE, SIZE, 3), 0.5, np.float32)}
    augmentation = jax.jit(augment.gaussian_noise(sigma=0.1))
    stds = [
        np.std(augmentation(jax.random.key(s), example)["image"]) for s in range(99)
    ]
    assert max(stds) < 0.105
    assert max(stds) > 0.09
    assert abs(np.mean(stds) - 0.05) < 0.012


blurred = jax.jit(functools.partial(color.gaussian_filter, radius=8))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 2.5])
def test_blur_against_scipy(rng, sigma):
    image = rng.random((15, 20, 3), np.float32)
    got = blurred(image, jnp.float32(sigma))
    if sigma == 0:
        expected = image
    else:
        expected = scipy.ndimage.gaussian_filter(
            image.astype(np.float64),
            (sigma, sigma, 0),
            mode="nearest",
            radius=(8, 8, 0),
        )
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_composed_augmentations_compile_once(rng, key):
    every = jax.jit(jax.vmap(augment.compose(*ALL.values())))
    for _ in range(3):
        examples = [random_example(rng) for _ in range(2)]
        batch = jax.tree.map(lambda *x: np.stack(x), *examples)
        every(jax.random.split(key), batch)
    assert every._cache_size() == 1


@pytest.mark.parametrize("name", ALL)
def test_a_result_depends_on_its_own_key_alone(rng, name, key):
    examples = [random_example(rng) for _ in range(4)]
    keys = jax.random.split(key, 4)
    mapped = jax.jit(jax.vmap(ALL[name]))
    stack = lambda rows: jax.tree.map(  # noqa: E731
        lambda *x: np.stack(x), *[examples[i] for i in rows]
    )
    whole = mapped(keys, stack([0, 1, 2, 3]))
    order = np.array([2, 0])
    part = mapped(keys[order], stack(order))
    for field, x in part.items():
        np.testing.assert_allclose(
            np.float32(x), np.float32(whole[field])[order], atol=1e-6
        )


def test_compose_gives_each_member_its_key(rng, key):
    example = random_example(rng)
    noisy = jax.jit(augment.gaussian_noise(sigma=0.2))
    one = jax.jit(augment.compose(noisy))(key, example)
    two = jax.jit(augment.compose(noisy, noisy))(key, example)
    by_hand = noisy(
        jax.random.fold_in(key, 1), noisy(jax.random.fold_in(key, 0), example)
    )
    same(two, by_hand)
    same(one, noisy(jax.random.fold_in(key, 0), example))
    first, second = one["image"] - example["image"], two["image"] - one["image"]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3


def test_compose_keeps_the_order(rng, key):
    def double(key, example):
        return example | {"image": example["image"] * 2}

    def add(key, example):
        return example | {"image": example["image"] + 1}

    example = random_example(rng)
    for members, expected in [((double, add), 3), ((add, double), 4)]:
        out = augment.compose(*members)(key, example | {"image": np.ones((4, 4, 3))})
        np.testing.assert_array_equal(out["image"], expected)


def test_sometimes_applies_with_its_probability(rng):
    example = random_example(rng)
    augmentation = jax.jit(augment.sometimes(0.3, augment.gaussian_noise(sigma=0.5)))
    changed = [
        not np.array_equal(
            augmentation(jax.random.key(s), example)["image"], example["image"]
        )
        for s in range(200)
    ]
    assert 0.2 < np.mean(changed) < 0.4


def with_objects(rng, size=(SIZE, SIZE)):
    """Blocks of labels 1 to 4, a mask each, and two slots without an object."""
    label = np.zeros(size, np.int32)
    for i, (top, left) in enumerate([(0, 0), (3, 14), (12, 2), (17, 17)], start=1):
        label[top : top + 6, left : left + 5] = i
    masks = np.stack([label == i for i in (1, 2, 3, 4, 9, 9)])
    return random_example(rng, size) | {
        "label": label,
        "masks": masks,
        "boxes": np.zeros((6, 4), np.float32),
        "object_mask": np.array([True] * 4 + [False] * 2),
    }


def box_of(mask):
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("name", [*SPATIAL, "zoomed in"])
def test_objects_move_with_their_labels(name, rng):
    change = (
        SPATIAL | {"zoomed in": augment.scale_and_crop(minimum=3.0, maximum=4.0)}
    )[name]
    example = with_objects(rng)
    change, lost = jax.jit(change), 0
    for seed in range(8):
        got = jax.device_get(change(jax.random.key(seed), example))
        wanted = np.stack([got["label"] == i for i in (1, 2, 3, 4, 9, 9)])
        np.testing.assert_array_equal(got["masks"], wanted)
        np.testing.assert_array_equal(got["boxes"], [box_of(m) for m in wanted])
        np.testing.assert_array_equal(got["object_mask"], wanted.any((1, 2)))
        lost += 4 - got["object_mask"].sum()
    assert lost > 0 or name != "zoomed in"


@pytest.mark.parametrize("name", ["horizontal_flip", "vertical_flip"])
def test_a_smaller_image_stays_in_the_top_left(name, rng):
    small = with_objects(rng, (17, 20))
    padded = {
        k: np.pad(
            v, [(0, 0)] * (k == "masks") + [(0, 7), (0, 4)] + [(0, 0)] * (k == "image")
        )
        for k, v in small.items()
        if k in ("image", "label", "valid", "masks")
    }
    padded = small | padded | {"size": np.array([17, 20], np.int32)}
    for seed in range(4):
        key = jax.random.key(seed)
        got, wanted = SPATIAL[name](key, padded), SPATIAL[name](key, small)
        np.testing.assert_array_equal(got["size"], [17, 20])
        np.testing.assert_array_equal(got["image"][:17, :20], wanted["image"])
        np.testing.assert_array_equal(got["masks"][:, :17, :20], wanted["masks"])
        np.testing.assert_array_equal(got["boxes"], wanted["boxes"])
        assert not np.any(got["valid"][17:]) | np.any(got["valid"][:, 20:])


def test_other_transforms_set_size_to_the_array(rng, key):
    example = with_objects(rng) | {"size": np.array([17, 20], np.int32)}
    for name in ("rotate90", "scale_and_crop", "rotate", "elastic"):
        np.testing.assert_array_equal(SPATIAL[name](key, example)["size"], [SIZE, SIZE])


@pytest.mark.parametrize("name", SPATIAL)
def test_boxes_without_masks_are_refused(name, key):
    with pytest.raises(ValueError, match="boxes without masks"):
        SPATIAL[name](key, ramp() | {"boxes": np.zeros((1, 4))})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.scale_and_crop(minimum=0.0), "0 < minimum <= maximum"),
        (lambda: augment.scale_and_crop(minimum=3.0), "0 < minimum <= maximum"),
        (lambda: augment.rotate(degrees=-1.0), "degrees must be at least 0"),
        (lambda: augment.elastic(sigma=-1.0), "sigma must be at least 0"),
        (lambda: augment.elastic(grid=1), "grid must be at least 2"),
        (
            lambda: augment.gaussian_noise(sigma=float("nan")),
            "sigma must be at least 0",
        ),
        (lambda: augment.gaussian_blur(sigma=-1.0), "sigma must be at least 0"),
        (lambda: augment.color_jitter(contrast=2.0), r"contrast must be in \[0, 1\]"),
        (
            lambda: augment.sometimes(1.5, augment.horizontal_flip),
            r"probability must be in \[0",
        ),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_stored_images_are_refused(key):
    with pytest.raises(AssertionError, match="float"):
        augment.horizontal_flip(
            key, ramp() | {"image": np.zeros((SIZE, SIZE, 3), np.uint8)}
        )


RANGED = {
    "color_jitter": augment.color_jitter(),
    "exposure": augment.exposure(),
    "gamma": augment.gamma(),
    "gaussian_noise": augment.gaussian_noise(sigma=1.0),
}


@pytest.mark.parametrize("name", RANGED)
@pytest.mark.parametrize(
    ("shift", "scale"), [(0.0, 1.0), (6_000.0, 2_000.0)], ids=["z-scored", "counts"]
)
def test_images_beyond_the_unit_range_are_not_clipped(rng, name, shift, scale):
    # Clipping affects the extremes only: other values remain distinct.
    image = shift + scale * np.clip(rng.normal(size=(SIZE, SIZE, 3)), -3, 3)
    example = random_example(rng) | {"image": image.astype(np.float32)}
    change = jax.jit(RANGED[name])
    for seed in range(8):
        out = np.asarray(change(jax.random.key(seed), example)["image"])
        assert out.min() >= min(image.min(), 0) - 1e-3 * scale
        assert out.max() <= image.max() + 1e-3 * scale
        assert len(np.unique(out)) > 0.8 * out.size
        assert np.corrcoef(out.ravel(), image.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", sorted(RANGED.keys() - {"gamma"}))
def test_unit_images_are_clipped_to_the_unit_range(rng, name, key):
    # Images in [0, 1] are clipped to [0, 1].
    example = random_example(rng) | {
        "image": rng.choice(np.float32([0.1, 0.9]), (SIZE, SIZE, 3))
    }
    change = jax.jit(RANGED[name])
    outs = np.stack([change(jax.random.key(s), example)["image"] for s in range(20)])
    assert outs.min() >= 0
    assert outs.max() == 1


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_have_no_saturation(rng, key, channels):
    image = rng.random((SIZE, SIZE, channels), np.float32)
    example = random_example(rng) | {"image": image}
    with pytest.raises(ValueError, match=f"3 channels only, got {channels}. Pass sat"):
        augment.color_jitter()(key, example)
    jitter = augment.color_jitter(brightness=0.1, contrast=0.2, saturation=0.0)
    bright, strong, _ = 1 + np.asarray(jax.random.uniform(key, (3,), minval=-1.0)) * [
        0.1,
        0.2,
        0,
    ]
    x = image.astype(np.float64) * bright
    x = strong * x + (1 - strong) * x.mean((0, 1))
    got = jitter(key, example)["image"]
    np.testing.assert_allclose(got, np.clip(x, 0, 1), atol=1e-5)


def test_compose_has_the_same_numbers_on_every_backend(rng, key, monkeypatch):
    example = random_example(rng)
    members = (
        augment.horizontal_flip,
        augment.gaussian_noise(sigma=0.2),
        augment.rotate(degrees=30.0),
    )
    looped = jax.jit(augment.compose(*members))
    assert "stablehlo.case" in looped.lower(key, example).as_text()
    expected = looped(key, example)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    plain = jax.jit(augment.compose(*members))
    assert "stablehlo.case" not in plain.lower(key, example).as_text()
    got = plain(key, example)
    np.testing.assert_allclose(got["image"], expected["image"], atol=1e-5)
    np.testing.assert_array_equal(got["label"], expected["label"])
