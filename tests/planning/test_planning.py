"""Statistics of shapes whose measures are known, and the settings that follow."""

import dataclasses
import inspect

import numpy as np
import pytest

from segjax import data, planning
from segjax.experiments import mask_rcnn, unet
from segjax.planning import plan

CLASSES = ("ground", "thing")


def dataset(labels, **more):
    """A data set of these label maps, with further entries for each."""
    examples = [
        {
            "image": np.zeros((*label.shape, 3), np.uint8),
            "label": label.astype(np.uint8),
            "name": str(number),
            **{name: values[number] for name, values in more.items()},
        }
        for number, label in enumerate(labels)
    ]
    return data.Dataset("shapes", CLASSES, {"train": examples}, "shapes")


def disk(radius, side=200):
    y, x = np.mgrid[:side, :side] - side // 2
    return y**2 + x**2 <= radius**2


def extent(*labels):
    return planning.statistics(dataset(labels)).extents[1]


def test_extent_of_disk_strip_and_square():
    assert extent(disk(40)) == pytest.approx(80, rel=0.03)
    diagonal = np.abs(np.subtract(*np.mgrid[:400, :400])) <= 10 * 2**0.5
    # Crofton's mean over directions: exact on average, not for each direction.
    assert extent(diagonal) == pytest.approx(2 * 20, rel=0.15)
    square = np.zeros((100, 100))
    square[20:60, 20:60] = 1
    assert extent(square) == pytest.approx(40 * 4 / np.pi)
    assert extent(square, square) == extent(square)


def test_borders_of_the_image_and_of_ignored_pixels_are_no_outline():
    half = np.zeros((60, 60))
    half[:, 30:] = 1
    half[:10] = 255
    # 50 rows of 30 pixels with one edge each.
    assert extent(half) == pytest.approx(4 * 30 / (np.pi / 4))
    assert planning.statistics(dataset([half])).pixel_shares == (0.5, 0.5)
    with_whole = planning.statistics(dataset([np.ones((8, 8))]))
    assert with_whole.extents == (None, None)
    assert with_whole.image_shares == (0.0, 1.0)


def test_objects_are_measured_by_their_boxes():
    ids = np.zeros((50, 60), np.uint16)
    ids[5:15, 10:50] = 7  # 10 x 40: geometric mean 20.
    ids[20:25, 3:8] = 2  # 5 x 5.
    ids[30:45, 30:45] = 9  # 15 x 15.
    found = planning.statistics(dataset([ids > 0], instances=[ids]))
    assert found.object_side == pytest.approx(15)
    assert found.most_objects == 3


@pytest.mark.parametrize(
    ("colors", "dtype", "colored"),
    [
        ([(200, 100, 50)] * 2 + [(9, 9, 9)] * 2, np.uint8, True),
        ([(200, 100, 50)] + [(9, 9, 9)] * 2, np.uint8, False),
        ([(100, 101, 99)] * 3, np.uint8, False),  # A gray JPEG.
        ([(200, 100, 50)] * 3, np.uint16, False),
        ([(200, 100)] * 3, np.uint8, False),
    ],
)
def test_photographs_are_told_from_gray_images(colors, dtype, colored):
    images = [np.full((8, 8, len(color)), color, dtype) for color in colors]
    found = planning.statistics(dataset([np.zeros((8, 8))] * len(colors), image=images))
    assert found.colored is colored


def test_photographs_call_for_a_pretrained_encoder():
    photos = dataclasses.replace(FIELDS, colored=True)
    assert planning.suggest(photos).pretrained
    assert not planning.suggest(FIELDS).pretrained
    # Crops of 64 pixels would be 2x2 at its coarsest scale.
    assert not planning.suggest(dataclasses.replace(photos, size=(90, 90))).pretrained


def test_many_images_are_read_evenly_spaced():
    labels = [np.full((4, 4), number % 2) for number in range(11)]
    found = planning.statistics(dataset(labels), most=4)
    assert found.counted == 4  # Numbers 0, 3, 6 and 9.
    assert found.images == {"train": 11}
    assert found.image_shares == (0.5, 0.5)


def test_masks_without_any_class_are_an_error():
    with pytest.raises(ValueError, match="No pixel of the 2 masks read has a class"):
        planning.statistics(dataset([np.full((4, 4), 255)] * 2))


FIELDS = planning.Statistics(
    images={"train": 16, "validation": 2, "test": 2},
    counted=16,
    size=(966, 1296),
    largest=(966, 1296),
    classes=("soil", "weed", "crop"),
    pixel_shares=(0.93, 0.055, 0.015),
    image_shares=(1.0, 1.0, 1.0),
    extents=(400.0, 33.0, 40.0),
)


def test_the_narrowest_class_keeps_eight_pixels():
    made = planning.suggest(FIELDS)
    assert (made.factor, made.resize) == (4, 324)
    assert made.size == 192 * 4  # 966 / 4 = 241 pixels, of which 192 are a crop.
    narrow = dataclasses.replace(FIELDS, extents=(400.0, 9.0, 40.0))
    assert planning.suggest(narrow).factor == 1
    assert planning.suggest(narrow).size == 192


def test_large_photographs_have_few_crops_an_update():
    large = dataclasses.replace(
        FIELDS, size=(3648, 5472), extents=(900.0, 120.0, 150.0)
    )
    made = planning.suggest(large)
    assert (made.factor, made.size, made.batch_size) == (6, 6 * 192, 2)


def test_small_images_are_not_shrunk():
    small = dataclasses.replace(FIELDS, size=(256, 256))
    made = planning.suggest(small)
    assert (made.factor, made.size, made.depth) == (1, 192, 5)
    tiny = planning.suggest(dataclasses.replace(FIELDS, size=(16, 16)))
    assert (tiny.factor, tiny.size, tiny.depth) == (1, 32, 3)


def test_a_given_scale_decides():
    assert planning.suggest(FIELDS, resize=1296).factor == 1
    made = planning.suggest(FIELDS, resize=200)  # 1296 / 200 = 6.5.
    assert made.factor == 6
    assert made.size % made.factor == 0


@pytest.mark.parametrize(
    ("resize", "factor"), [(None, 1), (100, 10), (2000, 1), (600, 2), (1, 1000)]
)
def test_shrink_factor(resize, factor):
    assert planning.shrink_factor((500, 1000), resize) == factor


def test_shrink_factor_of_nothing():
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        planning.shrink_factor((500, 1000), 0)


def test_class_weights_are_bounded_and_have_mean_one():
    # Without bounds: w proportional to 1 / sqrt(share), mean over pixels 1.
    shares = np.array([0.9, 0.06, 0.04])
    made = planning.suggest(dataclasses.replace(FIELDS, pixel_shares=tuple(shares)))
    want = shares**-0.5 / np.sum(shares * shares**-0.5)
    np.testing.assert_allclose(made.class_weights, want, atol=0.005)
    shares = (0.9989, 0.001, 0.0001)
    made = planning.suggest(dataclasses.replace(FIELDS, pixel_shares=shares))
    assert made.class_weights is not None
    assert made.class_weights[1:] == (4.0, 4.0)
    absent = dataclasses.replace(FIELDS, pixel_shares=(0.97, 0.03, 0.0))
    weights = planning.suggest(absent).class_weights
    assert weights is not None
    assert weights[2] == 1.0


def test_common_classes_are_not_weighted():
    even = dataclasses.replace(FIELDS, pixel_shares=(0.6, 0.3, 0.1))
    assert planning.suggest(even).class_weights is None
    one = dataclasses.replace(FIELDS, pixel_shares=(1.0, 0.0, 0.0))
    assert planning.suggest(one).class_weights is None


def test_detector():
    cells = dataclasses.replace(FIELDS, object_side=30.0, most_objects=140)
    made = planning.suggest_detector(cells)
    assert made.anchors == (16, 32, 64, 128, 256)
    assert (made.upscale, made.size, made.max_objects) == (1, 256, 100)
    small = dataclasses.replace(cells, object_side=9.0, most_objects=3)
    made = planning.suggest_detector(small)
    assert made.anchors == (8, 16, 32, 64, 128)  # Of 18 pixels in the enlarged image.
    assert (made.upscale, made.size, made.max_objects) == (2, 128, 3)
    with pytest.raises(ValueError, match="No training image has an object"):
        planning.suggest_detector(FIELDS)


def test_steps_within_a_time():
    # 450 of 600 s are for updates, less five evaluations of 10 s.
    assert planning.steps_within(600.0, update=0.5) == 900
    assert planning.steps_within(600.0, update=0.5, evaluation=10.0) == 800
    assert planning.steps_within(1.0, update=10.0) == 200
    assert planning.steps_within(1e9, update=0.01) == 20_000


def test_the_time_of_an_update_grows_with_network_and_crops():
    rate = planning.flops_per_second(repeats=1)
    assert rate > 1e8
    one = planning.update_seconds(1e9, pixels=10**6, flops_per_second=1e10)
    assert one == pytest.approx((3e9 + 9_000 * 10**6) / 1e10)


def test_suggestions_fit_the_settings_of_the_experiment():
    settings = {field.name for field in dataclasses.fields(plan.Plan)}
    settings -= {"factor", "pretrained"}
    assert settings <= inspect.signature(unet.experiment).parameters.keys()
    settings = {field.name for field in dataclasses.fields(plan.DetectorPlan)}
    assert settings <= inspect.signature(mask_rcnn.experiment).parameters.keys()
