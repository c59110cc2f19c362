"""Fields of examples in the pipeline and in augmentations."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import data, ops
from segjax.data import augment

CLASSES = ("a", "b")
FIELDS = {
    "pixel_weight": data.Field("linear"),
    "instances": data.Field("nearest"),
    "mask": data.Field("nearest"),
    "age": data.Field("none"),
}
SIZES = ((9, 12), (6, 7), (12, 9), (9, 10))


def example(number, size):
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows, columns], -1).astype(np.uint8)
    return {
        "image": image,
        "label": (rows % 2).astype(np.uint8),
        "pixel_weight": (rows * 100.0 + columns) + 1,
        "instances": (rows * 100 + columns + 1).astype(np.uint16),
        "mask": np.ones((*size, 2), bool),
        "age": number,
        "name": f"e{number}",
    }


def pipeline(change=None, **options):
    examples = [example(i, size) for i, size in enumerate(SIZES)]
    if change:
        examples[2] = examples[2] | change
        examples[2] = {k: v for k, v in examples[2].items() if v is not None}
    made = data.Dataset("fake", CLASSES, {"train": examples}, "f")
    options = {"size": 8, "fields": FIELDS, "multiple": 4} | options
    return data.Pipeline(dataset=made, **options)


def take(pipe, count, **options):
    with contextlib.closing(pipe.train_batches(batch_size=4, seed=0, **options)) as s:
        return list(itertools.islice(s, count))


def assert_fields_follow(batch, row, height, width):
    """Maps encode pixel positions, as the image does, and are 0 where padded."""
    places = batch["image"][row, :height, :width].astype(int)
    expected = places[..., 0] * 100 + places[..., 1] + 1
    weight, ids = batch["pixel_weight"][row], batch["instances"][row]
    np.testing.assert_array_equal(weight[:height, :width], expected)
    np.testing.assert_array_equal(ids[:height, :width], expected)
    for name in ("pixel_weight", "instances", "mask"):
        assert batch[name][row, :height, :width].all()
        assert not batch[name][row, height:].any()
        assert not batch[name][row, :, width:].any()


def test_training_crops_and_pads_fields():
    for batch in take(pipeline(), 5):
        types = {k: batch[k].dtype.name for k in FIELDS}
        assert types == {
            "pixel_weight": "float32",
            "instances": "uint16",
            "mask": "bool",
            "age": "int32",
        }
        assert batch["mask"].shape == (4, 8, 8, 2)
        for row, number in enumerate(batch["age"]):
            height, width = np.minimum(SIZES[number], 8)
            assert_fields_follow(batch, row, height, width)


def test_evaluation_pads_fields():
    seen = []
    for batch in pipeline().eval_batches("train", batch_size=3):
        for row, number in enumerate(batch["index"]):
            if number < 0:
                assert not any(batch[k][row].any() for k in FIELDS)
                continue
            assert batch["age"][row] == number
            assert_fields_follow(batch, row, *SIZES[number])
            seen.append(number)
    assert sorted(seen) == [0, 1, 2, 3]


def test_id_maps_and_slots_go_together():
    pipe = pipeline(max_objects=3)
    (batch,) = take(pipe, 1)
    assert batch["instances"].dtype == np.uint16
    assert batch["masks"].shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": None}, "record 2 of 'train' has no 'age', got image, instances"),
        ({"mask": np.ones((3, 4, 2), bool)}, r"record 2 .*e2 needs maps .*mask \(3, 4"),
        (
            {"mask": np.ones((12, 9, 3), bool)},
            r"mask bool \[H, W, 3\], the first example bool",
        ),
        (
            {"age": 2.5},
            r"record 2 of 'train' has age float32 \[\], the first example int32",
        ),
        ({"age": "old"}, "field 'age' holds <U3: needed numbers"),
        ({"age": 2**40}, "field 'age' holds int64 numbers beyond 32 bits"),
        (
            {"pixel_weight": np.ones((12, 9), int)},
            "'pixel_weight' holds int64: needed f",
        ),
        (
            {"image": np.zeros((12, 9), np.uint8)},
            r"2 .*has an image \[12, 9\].*channel",
        ),
        (
            {"image": np.zeros((12, 9, 3), np.uint8)},
            r"2 .* has image uint8 \[H, W, 3\]",
        ),
        (
            {"image": np.zeros((12, 9, 2), np.uint16)},
            "has image uint16 .* the first example uint8",
        ),
        (
            {"image": np.zeros((12, 9, 2))},
            "has an image of float64: needed uint8, uint",
        ),
        (
            {"label": np.zeros((12, 9), np.uint16)},
            "has label uint16 .* the first example uint8",
        ),
        ({"label": np.zeros((12, 9), int)}, "has a label of int64: needed uint8"),
        (
            {"label": np.full((12, 9), 2, np.uint8)},
            "record 2 of 'train' holds label 2: needed 0 to 1 for the 2 classes, or",
        ),
    ],
)
def test_mistakes_are_named(change, message):
    for read in (
        lambda pipe: take(pipe, 1),
        lambda pipe: list(pipe.eval_batches("train", batch_size=4)),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read(pipeline(change, max_shapes=1))
        assert "\n" not in str(error.value)


def test_names_are_checked():
    with pytest.raises(ValueError, match="field 'weight' has a name that batches use"):
        pipeline(fields={"weight": data.Field("linear")})


def test_packing_and_back(rng):
    batch = {"image": 1, "pixel_weight": 2, "instances": 3, "mask": 4, "age": 5}
    packed = ops.pack_fields(batch, FIELDS)
    assert packed == {
        "image": 1,
        "age": 5,
        "linear": {"pixel_weight": 2},
        "nearest": {"instances": 3, "mask": 4},
    }
    assert ops.unpack_fields(packed) == batch
    assert ops.pack_fields(batch, {}) == batch == ops.unpack_fields(batch)
    with pytest.raises(ValueError, match="the batch has no field 'mask', got age, im"):
        ops.pack_fields({"image": 1, "age": 5}, {"mask": data.Field("nearest")})


SIZE = 20
SPATIAL = {
    "horizontal_flip": augment.horizontal_flip,
    "rotate90": augment.rotate90,
    "rotate": augment.rotate(degrees=90.0),
    "elastic": augment.elastic(sigma=2.0),
    "scale_and_crop": augment.scale_and_crop(),
    "compose": augment.compose(augment.horizontal_flip, augment.rotate(degrees=30.0)),
}


@pytest.mark.parametrize("name", SPATIAL)
def test_maps_move_as_image_and_label_do(name, rng):
    # The linear maps are equal to image channels, the ids to the label.
    maps = rng.random((SIZE, SIZE, 3), np.float32)
    ids = rng.integers(1, 60_000, (SIZE, SIZE))
    moved = {
        "image": maps,
        "label": ids.astype(np.int32),
        "valid": np.ones((SIZE, SIZE), bool),
        "linear": {"flat": maps[..., 0], "deep": maps[..., 1:]},
        "nearest": {"ids": ids.astype(np.uint16), "two": np.stack([ids > 9] * 2, -1)},
        "age": np.float32(3),
    }
    change = jax.jit(SPATIAL[name])
    for seed in range(4):
        got = jax.device_get(change(jax.random.key(seed), moved))
        linear, nearest = got["linear"], got["nearest"]
        # XLA may fuse the two interpolations differently.
        np.testing.assert_allclose(linear["flat"], got["image"][..., 0], atol=1e-6)
        np.testing.assert_allclose(linear["deep"], got["image"][..., 1:], atol=1e-6)
        assert nearest["ids"].dtype == np.uint16
        np.testing.assert_array_equal(nearest["ids"], got["label"])
        np.testing.assert_array_equal(nearest["two"][..., 1], got["label"] > 9)
        np.testing.assert_array_equal(nearest["ids"] > 0, got["valid"])
        assert got["age"] == 3
    assert not np.array_equal(got["label"], ids) or name in (
        "horizontal_flip",
        "rotate90",
    )


def test_a_batch_goes_through_as_the_step_does_it(rng):
    batch = {
        "image": rng.random((3, 8, 8, 1), np.float32),
        "label": np.ones((3, 8, 8), np.int32),
        "valid": np.ones((3, 8, 8), bool),
        "age": np.arange(3.0, dtype=np.float32),
    }
    batch["pixel_weight"] = batch["image"][..., 0]
    fields = {k: FIELDS[k] for k in ("pixel_weight", "age")}
    keys = jax.random.split(jax.random.key(0), 3)
    change = jax.vmap(augment.rotate())
    got = ops.unpack_fields(change(keys, ops.pack_fields(batch, fields)))
    assert got.keys() == batch.keys()
    np.testing.assert_array_equal(got["pixel_weight"], got["image"][..., 0])


@pytest.mark.parametrize("name", ["horizontal_flip", "rotate"])
def test_a_map_of_another_size_is_refused(name, key):
    odd = {
        "image": jnp.zeros((4, 4, 1)),
        "label": jnp.zeros((4, 4), jnp.int32),
        "valid": jnp.ones((4, 4), bool),
        "linear": {"x": jnp.zeros((4, 5))},
    }
    with pytest.raises(AssertionError):
        SPATIAL[name](key, odd)
