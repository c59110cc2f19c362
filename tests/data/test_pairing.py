"""Layouts of images and masks: which are paired, what is printed, what is refused."""

import numpy as np
import pytest

from segjax import data
from segjax.data.builders import pairing
from segjax.data.builders.sources import Folder
from tests.data import sources

MASK = sources.png(np.eye(8, 12, dtype=np.uint8))


@pytest.fixture
def pair(tmp_path):
    """Pairs files of given names."""

    def pair(names, words=pairing.SEMANTIC):
        root = sources.write(tmp_path / "mine", dict.fromkeys(names, b""))
        return pairing.find(Folder(root), words, needs="images/ and masks/")

    return pair


@pytest.fixture
def refused(pair, tmp_path):
    def refused(names):
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            pair(names).splits(Folder(tmp_path / "mine"))
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


LAYOUTS = {
    "documented": ("images/{}.jpg", "masks/{}.png", ""),
    "suffix in masks": (
        "images/{}.png",
        "masks/{}_mask.png",
        "images/NAME -> masks/NAME_mask",
    ),
    "labels": ("img/{}.png", "labels/{}.png", "img/NAME -> labels/NAME"),
    "capitals": ("Images/{}.PNG", "Labels/{}-GT.png", "Images/NAME -> Labels/NAME-gt"),
    "other folder": ("field_7/{}.png", "masks/{}.png", "field_7/NAME -> masks/NAME"),
    "in the root": ("{}.jpg", "masks/{}.png", "NAME -> masks/NAME"),
    "one folder": (
        "{}_image.png",
        "{}_annotation.png",
        "NAME_image -> NAME_annotation",
    ),
    "one folder, masks only": ("{}.jpg", "{}_Mask.png", "NAME -> NAME_mask"),
    "in images": ("images/{}.jpg", "images/{}_label.png", "NAME -> NAME_label"),
    "before the name": ("img_{}.jpg", "mask_{}.png", "img_NAME -> mask_NAME"),
    "formats": ("{}.jpeg", "{}.png", "NAME.jpg -> NAME.png"),
    "patients": ("p{}/scan_{}.tif", "p{}/scan_{}_mask.tif", "NAME -> NAME_mask"),
    "satellites": ("{}_sat.jpg", "{}_mask.png", "NAME_sat -> NAME_mask"),
    "a folder inside": ("mine/images/{}.png", "mine/masks/{}.png", ""),
    "a folder for each": ("case{}/images/{}.png", "case{}/masks/{}.png", ""),
    "nested": ("images/a/b/{}.png", "masks/a/b/{}.png", ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_are_paired(pair, layout):
    image, mask, rule = LAYOUTS[layout]
    stems = ["001", "002", "010"]
    wanted = {(image.format(s, s), mask.format(s, s)) for s in stems}
    got = pair([name for names in wanted for name in names])
    assert {(p.image, p.mask) for p in got.pairs} == wanted
    assert got.rule == (rule and f"paired 3 images with masks: {rule}")
    assert [p.split for p in got.pairs] == ["", "", ""]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}/images/{}.png", "{}/masks/{}.png"),
        ("images/{}/{}.png", "masks/{}/{}.png"),
        ("{}/{}.jpg", "{}/{}_mask.png"),
        ("mine/{}/images/{}.png", "mine/{}/masks/{}.png"),
    ],
)
def test_folders_that_are_splits(pair, tmp_path, image, mask):
    places = {"train": "train", "Val": "validation", "test": "test"}
    names = [n.format(p, i) for p in places for n in (image, mask) for i in "ab"]
    got = pair(names).splits(Folder(tmp_path / "mine"))
    assert got.keys() == set(places.values())
    for place, split in places.items():
        want = [(image.format(place, i), mask.format(place, i)) for i in "ab"]
        assert [(p.image, p.mask) for p in got[split]] == want
        assert all(p.name.rpartition("/")[2] in "ab" for p in got[split])


def test_names_have_the_folders_below_images(pair):
    names = ["images/p1/a.png", "images/p2/a.png", "masks/p1/a.png", "masks/p2/a.png"]
    assert [p.name for p in pair(names).pairs] == ["p1/a", "p2/a"]


def test_folders_of_runs_and_other_files_are_left_out(pair):
    names = ["images/a.png", "masks/a.png", "overview.png", "notes.txt"]
    names += ["run/run.json", "run/samples/images/b.png", "masks/readme.md"]
    assert [p.image for p in pair(names).pairs] == ["images/a.png"]


def test_instance_maps(pair):
    names = ["images/a.png", "instances/a.png", "masks/other.png"]
    (got,) = pair(names, pairing.INSTANCES).pairs
    assert (got.image, got.mask) == ("images/a.png", "instances/a.png")


REFUSED = {
    "two folders of masks": (
        ["images/a.png", "masks/a.png", "labels/a.png"],
        "mine/labels and masks can both be meant",
    ),
    "two folders of images": (
        ["images/a.png", "img/a.png", "masks/a.png"],
        "mine/images and img can both be meant",
    ),
    "two words": (
        ["a.jpg", "a_mask.png", "a_label.png"],
        "mine/a_mask.png and a_label.png can both be the mask",
    ),
    "two ways": (
        ["a_image.jpg", "a_mask.jpg", "a_image.png", "a_mask.png"],
        "have the same stem",
    ),
    "a mask too few": (
        ["a_image.png", "a_mask.png", "b_image.png", "b_mask.png", "c_image.png"],
        "mine/c_image.png has no mask: needed c_mask.*",
    ),
    "an image too few": (
        ["a.png", "a_mask.png", "b_mask.png"],
        "mine/b_mask.png has no image: needed b.*",
    ),
    "a mask too few in folders": (
        ["images/a.png", "images/b.png", "masks/a_mask.png"],
        "mine/images/b.png has no mask: needed b_mask.* in mine/masks",
    ),
    "no masks": (["a.png", "b.png"], "has 2 images, such as a.png, and no masks"),
    "no images": (["masks/a.png"], "has masks and no images: needed images/"),
    "nothing": (["a.txt"], "holds no image"),
    "no train": (
        ["test/images/a.png", "test/masks/a.png"],
        "has test but no train folder",
    ),
    "in and out of splits": (
        ["train/a.jpg", "train/a.png", "b.jpg", "b.png"],
        "mine/b.jpg is in no split folder, but train/a.jpg is in one",
    ),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_layouts_that_are_refused(refused, layout):
    names, words = REFUSED[layout]
    assert words in refused(names)


@pytest.mark.parametrize(
    ("names", "other"),
    [
        (["images/a.jpg", "annotations.xml"], "cvat"),
        (["images/train/a.jpg", "labels/train/a.txt", "data.yaml"], "yolo"),
        (["V/JPEGImages/a.jpg", "V/SegmentationClass/a.png"], "voc"),
        (["leftImg8bit/a.png", "gtFine/a_color.png"], "cityscapes"),
        (["a.jpg", "a.json"], "labelme"),
    ],
)
def test_other_formats_are_named(refused, names, other):
    got = refused(names)
    assert f"annotations in the format {other}" in got
    assert f"segjax data import {other} mine --out NEW_FOLDER" in got


def test_a_link_to_a_folder_above_is_refused(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/again").symlink_to(tmp_path / "mine")
    assert "is 16 folders deep" in refused(["images/a.png", "masks/a.png"])


def test_crop_and_weed_photographs(tmp_path, rng, capsys):
    """Images and masks in one folder, masks in three colors."""
    colors = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 0]], np.uint8)
    ids = {}
    for i in range(1, 7):
        ids[f"{i:03d}_image"] = drawn = rng.choice(3, (8, 12), p=[0.7, 0.2, 0.1])
        files = {
            f"{i:03d}_image.png": sources.png(sources.image(rng)),
            f"{i:03d}_annotation.png": sources.png(colors[drawn]),
        }
        sources.write(tmp_path / "field", files)
    made = data.folder(tmp_path / "field", data_dir=tmp_path / "prepared")
    assert made.classes == ("color #000000", "color #00ff00", "color #ff0000")
    for split in made.splits.values():
        for example in split:
            np.testing.assert_array_equal(example["label"], ids[example["name"]])
    said = capsys.readouterr().err
    assert "note: paired 6 images with masks: NAME_image -> NAME_annotation" in said
    assert "3 colors became classes 0 to 2, the most common first: #000000" in said
    assert sum(map(len, made.splits.values())) == 6
    assert sorted(p.name for p in (tmp_path / "field").iterdir())[0].startswith("001")
