"""Arrays in memory as a data set."""

import contextlib
import itertools
import pathlib
import re

import numpy as np
import pytest

from segjax import data

CLASSES = ("a", "b", "c")


def scenes(rng, count=10, dtype=np.uint16, size=(6, 8), channels=5):
    image = rng.integers(0, 250, (count, *size, channels)).astype(dtype)
    label = rng.integers(0, 3, (count, *size))
    return image, label


def take(pipeline, count=1, **options):
    options = {"batch_size": 4, "seed": 0} | options
    with contextlib.closing(pipeline.train_batches(**options)) as stream:
        return list(itertools.islice(stream, count))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pixels_reach_batches_as_they_are(rng, dtype, channels):
    images, labels = scenes(rng, dtype=dtype, channels=channels)
    images = images * dtype(200) if dtype == np.uint16 else images
    made = data.from_arrays(images, labels, classes=CLASSES, validation=0.2, test=0.0)
    assert {k: len(v) for k, v in made.splits.items()} == {"train": 8, "validation": 2}
    pipeline = data.Pipeline(dataset=made, multiple=8)
    (batch,) = take(pipeline, batch_size=8)
    whole, *rest = pipeline.eval_batches("validation", batch_size=2)
    assert not rest
    assert batch["image"].dtype == whole["image"].dtype == dtype
    assert batch["label"].dtype == np.uint8
    seen = [*batch["image"], *whole["image"][:, :6]]
    key = np.ndarray.tobytes
    assert sorted(map(key, seen)) == sorted(map(key, images))
    by_image = {key(i): y for i, y in zip(images, labels, strict=True)}
    for image, label in zip(batch["image"], batch["label"], strict=True):
        np.testing.assert_array_equal(label, by_image[key(image)])
    assert (whole["label"][:, 6:] == 255).all()


def test_sizes_may_differ_and_gray_gets_its_axis(rng):
    images = [rng.random((h, 5), np.float32) for h in (4, 6, 7)]
    labels = [np.zeros(x.shape, np.int64) for x in images]
    made = data.from_arrays(
        {"train": (images, labels), "validation": (images, labels)}, classes=CLASSES
    )
    for example, image in zip(made.splits["train"], images, strict=True):
        np.testing.assert_array_equal(example["image"], image[..., None])
    assert [made.splits["train"].image_size(i) for i in range(3)] == [
        (4, 5),
        (6, 5),
        (7, 5),
    ]


def test_validation_is_taken_out_of_train(rng):
    part = scenes(rng)
    made = data.from_arrays({"train": part, "test": part}, classes=CLASSES)
    sizes = {k: len(v) for k, v in made.splits.items()}
    assert sizes == {"train": 9, "validation": 1, "test": 10}


def test_the_fingerprint_is_of_the_content(rng):
    images, labels = scenes(rng)
    make = lambda *a, **o: data.from_arrays(*a, classes=CLASSES, **o)  # noqa: E731
    one, two = make(images, labels), make(images.copy(), list(labels))
    assert one.fingerprint == two.fingerprint
    assert one == two
    other = images.copy()
    other[3, 0, 0, 0] += 1
    prints = {one.fingerprint, make(other, labels).fingerprint}
    prints |= {make(images, labels, seed=1).fingerprint}
    prints |= {data.from_arrays(images, labels, classes=("a", "b", "d")).fingerprint}
    assert len(prints) == 4


def test_many_classes_keep_their_ids(rng):
    names = [f"c{i}" for i in range(300)]
    labels = np.arange(48).reshape(1, 6, 8).repeat(6, 0) + 252
    labels[:, 0, 0] = 255
    made = data.from_arrays(np.zeros((6, 6, 8), np.uint8), labels, classes=names)
    (batch,) = take(data.Pipeline(dataset=made), batch_size=2)
    assert batch["label"].dtype == np.uint16
    np.testing.assert_array_equal(batch["label"][0], labels[0])
    assert labels.max() == 299


def test_exact_conversions_and_no_others(rng):
    labels = np.zeros((3, 4, 4), np.uint8)
    make = lambda x: data.from_arrays(x, labels, classes=CLASSES)  # noqa: E731
    whole = rng.integers(0, 65_536, (3, 4, 4, 2))
    made = make(whole).splits["train"][0]["image"]
    assert made.dtype == np.uint16
    assert make(whole / 2).splits["train"][0]["image"].dtype == np.float32
    for wrong, words in [
        (whole + 1e-9, "float64 numbers that float32 cannot represent"),
        (whole - 70_000, "int64 numbers from"),
        (np.full((3, 4, 4), np.nan), "NaN"),
        (whole > 3, "bool values"),
    ]:
        with pytest.raises(ValueError, match=rf"example \d of 'train' holds.*{words}"):
            make(wrong)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (
            np.int64,
            -1,
            r"example 2 of 'train' holds label -1: .*uint8 labels with the id 255",
        ),
        (np.int32, 255, "holds label 255: needed 0 to 2; to ignore pixels"),
        (np.uint8, 3, "holds label 3: needed 0 to 2 for the 3 classes, or 255"),
        (np.uint16, 255, r"holds label 255: .* or 65535 \(ignored\)"),
        (np.float32, 1, "has a label of float32: needed integers"),
    ],
)
def test_ids_are_checked_at_once(dtype, value, message):
    labels = np.zeros((4, 5, 5), dtype)
    labels[2, 1, 1] = value
    with pytest.raises(ValueError, match=message) as error:
        data.from_arrays(np.zeros((4, 5, 5, 1), np.uint8), labels, classes=CLASSES)
    assert "\n" not in str(error.value)


def test_ignored_ids_stay(rng):
    for dtype, ignored in ((np.uint8, 255), (np.uint16, 65_535)):
        labels = np.full((4, 5, 5), ignored, dtype)
        made = data.from_arrays(np.zeros((4, 5, 5)), labels, classes=CLASSES)
        assert (made.splits["train"][0]["label"] == ignored).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, y: (i, y[:3]), "3 of 'label' and 10 images"),
        (lambda i, y: (i, y[:, :3]), r"an image of \[6, 8\] and a label of \[3, 8\]"),
        (lambda i, y: (i,), "needs images and labels"),
        (lambda i, y: ({"test": (i, y)},), 'needs a split "train", got test'),
        (
            lambda i, y: ({"train": (i, y)}, y),
            "named splits needs .name: .images, labels",
        ),
        (
            lambda i, y: ([*i[:9], i[9].astype(np.uint8)], y),
            r"train 9 has image uint8\[H, W, 5\], train 0 has uint16\[H, W, 5\]",
        ),
        (
            lambda i, y: ({"train": (i, y, {"name": y})},),
            "field name 'name' is reserved",
        ),
    ],
)
def test_mistakes_are_named(rng, call, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_arrays(*call(*scenes(rng)), classes=CLASSES)
    assert "\n" not in str(error.value)


def test_classes_are_checked(rng):
    for classes in ("abc", ("a", "a"), ()):
        with pytest.raises(ValueError, match="classes"):
            data.from_arrays(*scenes(rng), classes=classes)


@pytest.mark.slow
def test_workers_read_arrays(rng):
    images, labels = scenes(rng)
    made = data.from_arrays(images, labels, classes=CLASSES)
    alone = take(data.Pipeline(dataset=made, size=5), 3)
    helped = take(data.Pipeline(dataset=made, size=5, num_workers=1), 3)
    for a, b in zip(alone, helped, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_the_page_on_data_runs():
    page = pathlib.Path(__file__).parents[2] / "docs" / "data.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), {})
