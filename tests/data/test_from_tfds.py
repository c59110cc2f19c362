"""A small TFDS data set, prepared here and read as any other."""

import contextlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from segjax import data
from segjax.data.builders import packing
from tests.data import sources
from tests.data.test_no_tensorflow import HIDE

SIZES = ((5, 7), (6, 4), (9, 9), (5, 7))


class TinyScenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Color and 16-bit images, labels as an image with names and as a tensor."""

    VERSION = tfds.core.Version("1.2.3")

    def _info(self):
        names = ["sky", "road", "car"]
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "depth": tfds.features.Image(
                shape=(None, None, 1), dtype=np.uint16, encoding_format="png"
            ),
            "mask": tfds.features.LabeledImage(labels=names, shape=(None, None, 1)),
            "ids": tfds.features.Tensor(
                shape=(None, None), dtype=np.int64, encoding="zlib"
            ),
            "photo": tfds.features.Image(encoding_format="jpeg"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tiny scenes.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(9)}

    def _generate_examples(self, seed):
        for i in range(len(SIZES)):
            arrays = made(seed, i)
            yield (
                i,
                {
                    "image": packing.to_png(arrays["image"]),
                    "depth": packing.to_png(arrays["depth"]),
                    "mask": packing.to_png(arrays["mask"]),
                    "ids": arrays["mask"].astype(np.int64),
                    "photo": sources.io.BytesIO(sources.png(arrays["image"], "JPEG")),
                },
            )


def made(seed, i):
    rng = np.random.default_rng([seed, i])
    return {
        "image": sources.image(rng, *SIZES[i]),
        "depth": rng.integers(0, 60_000, SIZES[i]).astype(np.uint16),
        "mask": rng.integers(0, 3, SIZES[i]).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    TinyScenes(data_dir=os.fspath(root)).download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return root


def load(root, **options):
    options = {"image": "image", "label": "mask", "data_dir": root} | options
    return data.from_tfds("tiny_scenes", **options)


def test_reads_what_was_stored(root):
    got = load(root)
    assert got.classes == ("sky", "road", "car")
    assert {k: len(v) for k, v in got.splits.items()} == {"train": 4, "test": 4}
    for split, seed in (("train", 0), ("test", 9)):
        for i, example in enumerate(got.splits[split]):
            wanted = made(seed, i)
            np.testing.assert_array_equal(example["image"], wanted["image"])
            np.testing.assert_array_equal(example["label"], wanted["mask"])
            assert example["label"].dtype == np.uint8
            assert got.splits[split].image_size(i) == SIZES[i]


def deep_pair(example):
    return np.concatenate([example["depth"], example["image"]], -1)


def test_other_features_and_functions(root):
    classes = ("a", "b", "c")
    deep = load(root, image="depth", label="ids", classes=classes).splits["train"]
    both = load(root, image=deep_pair, label="ids", classes=classes).splits["train"]
    photo = load(root, image="photo").splits["train"]
    for i in range(len(SIZES)):
        wanted = made(0, i)
        np.testing.assert_array_equal(deep[i]["image"], wanted["depth"][..., None])
        np.testing.assert_array_equal(deep[i]["label"], wanted["mask"])
        np.testing.assert_array_equal(both[i]["image"][..., 1:], wanted["image"])
        assert both[i]["image"].dtype == np.uint16
        assert both.image_size(i) == SIZES[i]
        assert photo[i]["image"].shape == (*SIZES[i], 3)
        assert photo[i]["image"].dtype == np.uint8


def test_batches_and_slices(root):
    splits = {"train": "train[:75%]+test[:1]", "validation": "train[75%:]"}
    got = load(root, splits=splits)
    pipeline = data.Pipeline(dataset=got, size=4)
    with contextlib.closing(pipeline.train_batches(batch_size=4, seed=0)) as stream:
        batch, _ = itertools.islice(stream, 2)
    assert batch["image"].shape == (4, 4, 4, 3)
    (batch,) = pipeline.eval_batches("validation", batch_size=1)
    np.testing.assert_array_equal(batch["image"][0, :5, :7], made(0, 3)["image"])


def test_equal_views_are_equal(root):
    one, two = load(root), load(root)
    assert one == two
    assert hash(one.splits["train"]) == hash(two.splits["train"])
    other = load(root, image="depth")
    assert one != other
    assert one.fingerprint != other.fingerprint
    builder = tfds.builder_from_directory(root / "tiny_scenes" / "1.2.3")
    same = data.from_tfds(builder, image="image", label="mask")
    assert same == one


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "other",
            {},
            r"other is not prepared in .*`tfds build other --data_d",
        ),
        ("tiny_scenes:9.9.9", {}, "is not prepared"),
        ("tiny_scenes", {"image": "picture"}, "no feature 'picture', got depth, ids"),
        ("tiny_scenes", {"label": "ids"}, "no class names for the label: pass class"),
    ],
)
def test_mistakes_are_named(root, name, options, message):
    options = {"image": "image", "label": "mask", "data_dir": root} | options
    with pytest.raises(ValueError, match=message) as error:
        data.from_tfds(name, **options)
    assert "\n" not in str(error.value)


def test_ids_beyond_the_classes_are_named(root):
    got_two = {"label": "ids", "classes": ("a", "b")}
    with pytest.raises(ValueError, match="example 0 of 'train' holds label 2"):
        load(root, **got_two)


def test_without_tensorflow(root):
    program = f"""{HIDE}
from segjax import data
root = {str(root)!r}
made = data.from_tfds("tiny_scenes", image="image", label="mask", data_dir=root)
print(made.splits["train"][0]["image"].shape)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(5, 7, 3)\n"
