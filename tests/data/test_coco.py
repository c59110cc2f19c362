"""COCO annotations, compared with pycocotools."""

import contextlib
import io
import json

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO

from segjax import data
from segjax.data.objects import objects_of
from tests.data import sources

WIDTH, HEIGHT = 30, 20
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def rectangle(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def annotation(number, image, category, box, **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "segmentation": [rectangle(*box)],
        "iscrowd": 0,
        "area": box[2] * box[3],
    } | more


def run_lengths(rng):
    """Uncompressed column-major run lengths of a random mask."""
    mask = rng.random((HEIGHT, WIDTH)) > 0.7
    flat = np.concatenate([[False], mask.ravel("F"), [True]])
    changes = np.flatnonzero(np.diff(flat)) if mask.any() else np.array([mask.size])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts}


@pytest.fixture
def content(rng):
    """Polygons with one and two parts, non-integer, overlapping; a crowd; none."""
    triangle = [3.5, 2.25, 17.8, 4.5, 9.1, 15.9]
    return {
        "images": [
            {"id": i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH}
            for i, n in ((11, "a"), (5, "b"), (8, "empty"))
        ],
        "categories": CATEGORIES,
        "annotations": [
            annotation(1, 11, 7, [2, 3, 10, 8]),
            annotation(2, 11, 3, [4, 5, 3, 3]),
            annotation(
                3, 11, 7, [3, 2, 15, 14], segmentation=[triangle, rectangle(0, 0, 3, 2)]
            ),
            annotation(
                4,
                5,
                3,
                [0, 0, WIDTH, HEIGHT],
                segmentation=run_lengths(rng),
                iscrowd=1,
            ),
            annotation(5, 5, 7, [25, 10, 5.5, 10.5]),
        ],
    }


@pytest.fixture
def images(rng):
    return {
        f"images/{name}.png": sources.png(sources.image(rng, HEIGHT, WIDTH))
        for name in ("a", "b", "empty")
    }


@pytest.fixture
def load(tmp_path):
    def load(files, **options):
        source = sources.write(tmp_path / "mine", files)
        options = {"validation": 0.0, "test": 0.0} | options
        return data.coco(source, data_dir=tmp_path / "prepared", **options)

    return load


def as_json(content):
    return {"annotations.json": json.dumps(content).encode()}


def test_masks_and_crowds_are_those_of_pycocotools(load, content, images, tmp_path):
    got = load(as_json(content) | images)
    assert got.classes == ("background", "dog", "cat")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "mine/annotations.json"))
    names = {"dog": 1, "cat": 2}
    by_name = {e["name"]: e for e in got.splits["train"]}
    assert list(by_name) == ["a", "b", "empty"]
    for image in content["images"]:
        example = by_name[image["file_name"].removesuffix(".png")]
        wanted = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        found = objects_of(example)
        assert len(found.masks) == len(wanted)
        for mask, category, crowd, one in zip(
            found.masks, found.classes, found.crowd, wanted, strict=True
        ):
            np.testing.assert_array_equal(mask, coco.annToMask(one))
            assert category == names[coco.cats[one["category_id"]]["name"]]
            assert crowd == one["iscrowd"]
    assert objects_of(by_name["empty"]).masks.shape == (0, HEIGHT, WIDTH)


def test_label_has_small_objects_on_top_and_crowds_ignored(load, content, images):
    examples = {e["name"]: e for e in load(as_json(content) | images).splits["train"]}
    assert examples["a"]["label"][6, 5] == 1  # The dog, inside both cats.
    assert examples["a"]["label"][4, 10] == 2
    crowd, cat = objects_of(examples["b"]).masks
    expected = np.where(cat, 2, np.where(crowd, 255, 0))
    np.testing.assert_array_equal(examples["b"]["label"], expected)
    assert not examples["empty"]["label"].any()


def test_compressed_run_lengths(load, content, images):
    plain = load(as_json(content) | images)
    crowd = content["annotations"][3]
    from pycocotools import mask as coco_mask

    packed = coco_mask.frPyObjects(crowd["segmentation"], HEIGHT, WIDTH)
    crowd["segmentation"] = packed | {"counts": packed["counts"].decode()}
    again = load(as_json(content) | images)
    assert again.splits["train"][1]["objects"] == plain.splits["train"][1]["objects"]


@pytest.mark.parametrize(
    "layout",
    [
        {"json": "{}/annotations.json", "images": "{}/images/", "val": "val"},
        {"json": "{}/_annotations.coco.json", "images": "{}/", "val": "valid"},
        {
            "json": "annotations/instances_{}2017.json",
            "images": "{}2017/",
            "val": "val",
        },
    ],
    ids=["folders", "roboflow", "coco"],
)
def test_layouts(load, content, images, layout):
    files = {}
    for split in ("train", layout["val"]):
        files[layout["json"].format(split)] = json.dumps(content).encode()
        for name, pixels in images.items():
            place = layout["images"].format(split)
            files[place + name.removeprefix("images/")] = pixels
    got = load(files)
    assert {k: len(v) for k, v in got.splits.items()} == {"train": 3, "validation": 3}


def test_fractions_are_held_out(load, content, images):
    got = load(as_json(content) | images, validation=0.3, test=0.3)
    assert {k: len(v) for k, v in got.splits.items()} == dict.fromkeys(got.splits, 1)
    assert len(got.splits) == 3


def broken(content, **change):
    """The content with its first annotation changed."""
    first = content["annotations"][0] | change
    return content | {"annotations": [first, *content["annotations"][1:]]}


FAULTS = {
    "box outside": ({"bbox": [25, 3, 10, 8]}, ["annotation 1", "30x20", "25"]),
    "box before": ({"bbox": [-2, 3, 10, 8]}, ["annotation 1", "inside its image"]),
    "negative width": ({"bbox": [5, 3, -2, 8]}, ["annotation 1", "-2"]),
    "two points": ({"segmentation": [[1, 1, 5, 5]]}, ["annotation 1", "three points"]),
    "odd": ({"segmentation": [[1, 1, 5, 5, 3, 2, 1]]}, ["annotation 1", "7 numbers"]),
    "no polygon": ({"segmentation": []}, ["annotation 1", "no mask"]),
    "category": ({"category_id": 9}, ["annotation 1", "category 9", "3, 7"]),
    "image": ({"image_id": 99}, ["annotation 1", "image_id 99"]),
    "twice": ({"id": 2}, ["entry 2 of annotations", "twice"]),
    "size": (
        {"segmentation": {"size": [5, 5], "counts": [25]}},
        ["annotation 1", "[5, 5]", "[20, 30]"],
    ),
}


@pytest.fixture
def message(load, tmp_path):
    def message(files):
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            load(files)
        assert sources.leftovers(tmp_path / "prepared") == []
        return str(caught.value)

    return message


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(message, content, images, fault):
    change, words = FAULTS[fault]
    got = message(as_json(broken(content, **change)) | images)
    assert "annotations.json" in got
    for word in words:
        assert word in got, got


def test_a_missing_image_file_is_named(message, content, images):
    del images["images/b.png"]
    got = message(as_json(content) | images)
    assert "b.png of image 5" in got


def test_an_image_of_another_size_is_named(message, content, images, rng):
    images["images/b.png"] = sources.png(sources.image(rng, 8, 12))
    got = message(as_json(content) | images)
    assert "b.png is 12x8" in got
    assert "30x20" in got


def test_files_that_are_not_there_or_not_coco(message, content, images):
    assert "no annotation file" in message(dict(images))
    assert "not JSON" in message({"annotations.json": b"{"} | images)


def test_annotations_without_their_lists(message, content, images):
    assert "no list 'images'" in message(as_json([]) | images)


def test_missing_fields(message, content, images):
    first = dict(content["annotations"][0])
    del first["bbox"]
    got = message(as_json(content | {"annotations": [first]}) | images)
    assert "entry 1 of annotations has no bbox" in got


def test_two_annotation_files(message, content, images):
    files = as_json(content) | {"other.json": b"{}"} | images
    got = message(files)
    assert "2 annotation files" in got
    assert "other.json" in got


def test_objects_of_instance_maps():
    instances = np.array([[0, 2, 2], [5, 5, 2]], np.uint16)
    label = np.array([[0, 3, 3], [1, 1, 3]], np.uint8)
    got = objects_of({"instances": instances, "label": label})
    np.testing.assert_array_equal(got.masks, [instances == 2, instances == 5])
    np.testing.assert_array_equal(got.classes, [3, 1])
    assert not got.crowd.any()
    with pytest.raises(
        ValueError, match="a data set with objects, got examples with label"
    ):
        objects_of({"label": label})


def test_more_categories_than_a_byte_counts(load, content, images):
    content["categories"] = [{"id": i, "name": f"k{i}"} for i in range(1, 301)]
    for number, one in enumerate(content["annotations"]):
        one["category_id"] = 255 + 10 * number
    got = load(as_json(content) | images)
    assert len(got.classes) == 301
    examples = {e["name"]: e for e in got.splits["train"]}
    assert examples["a"]["label"].dtype == np.uint16
    assert {0, 255, 265, 275} == set(np.unique(examples["a"]["label"]).tolist())
    assert set(np.unique(examples["b"]["label"]).tolist()) <= {0, 65_535, 295}
    pipeline = data.Pipeline(dataset=got, multiple=1, max_objects=4)
    (batch,) = pipeline.eval_batches("train", batch_size=3)
    assert batch["classes"][0].tolist() == [255, 265, 275, 0]


@pytest.mark.parametrize(
    "name",
    [
        "images/{}",
        "./{}",
        "images\\{}",
        "C:\\work\\images\\{}",
        "/home/me/work/images/{}",
        "other/{}",
    ],
)
def test_file_names_as_tools_write_them(load, content, images, name):
    before = load(as_json(content) | images)
    for image in content["images"]:
        image["file_name"] = name.format(image["file_name"])
    got = load(as_json(content) | images)
    assert got.fingerprint == before.fingerprint


def test_the_longest_end_of_a_file_name_counts(load, content, images, rng):
    inner = sources.image(rng, HEIGHT, WIDTH)
    images["images/deep/a.png"] = sources.png(inner)
    content["images"][0]["file_name"] = "/data/deep/a.png"
    got = {e["name"]: e for e in load(as_json(content) | images).splits["train"]}
    np.testing.assert_array_equal(got["a"]["image"], inner)


def test_two_names_of_one_file_are_refused(message, content, images):
    content["images"][1]["file_name"] = "/data/a.png"
    got = message(as_json(content) | images)
    assert "image 5 and another one have the same file, /data/a.png" in got


def test_all_images_in_one_folder(load, content, images):
    kept, rest = content["images"][:1], content["images"][1:]
    objects = content["annotations"]
    parts = {
        "train": content | {"images": kept, "annotations": objects[:3]},
        "val": content | {"images": rest, "annotations": objects[3:]},
    }
    files = {
        f"annotations/instances_{k}.json": json.dumps(v).encode()
        for k, v in parts.items()
    }
    got = load(files | images)
    names = {k: [e["name"] for e in v] for k, v in got.splits.items()}
    assert names == {"train": ["a"], "validation": ["b", "empty"]}


def test_an_image_in_two_splits_is_refused(message, content, images):
    whole = json.dumps(content).encode()
    files = {f"annotations/instances_{k}.json": whole for k in ("train", "val")}
    got = message(files | images)
    assert "a.png is listed in train and in validation: needed each image in" in got


def test_a_set_without_annotations_is_refused(message, content, images):
    got = message(as_json(content | {"annotations": []}) | images)
    assert "has no annotation: needed the objects of its 3 images" in got


@pytest.mark.parametrize("far", [31, -20])
def test_a_polygon_outside_is_refused(message, content, images, far):
    shape = [rectangle(2, 3, 10, 8), rectangle(far, 3, 10, 8)]
    got = message(as_json(broken(content, segmentation=shape)) | images)
    assert f"annotation 1 has a polygon from ({far}, 3) to ({far + 10}, 11)" in got


def test_annotations_without_a_pixel_are_left_out(load, content, images, capsys):
    line = [3, 3, 9, 3, 3, 3]
    got = load(as_json(broken(content, segmentation=[line])) | images)
    objects = {e["name"]: objects_of(e) for e in got.splits["train"]}
    assert len(objects["a"].masks) == 2
    assert all(found.masks.any((1, 2)).all() for found in objects.values())
    said = capsys.readouterr().err
    assert "without a pixel are left out: 1 (annotation 1 of a)." in said


def test_a_turned_photograph_is_called_so(message, content, images, rng, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo = PIL.Image.fromarray(sources.image(rng, HEIGHT, WIDTH))
    photo.save(buffer, "JPEG", exif=exif)
    content["images"][0]["file_name"] = "a.jpg"
    del images["images/a.png"]
    images["images/a.jpg"] = buffer.getvalue()
    got = message(as_json(content) | images)
    assert "a.jpg is 20x30 pixels (turned by its EXIF orientation)" in got
    mask = sources.png(np.zeros((HEIGHT, WIDTH), np.uint8))
    files = {"images/a.jpg": buffer.getvalue(), "masks/a.png": mask}
    with pytest.raises(ValueError, match="30x20 pixels: needed 20x30") as caught:
        data.folder(sources.write(tmp_path / "pair", files), data_dir=tmp_path / "p")
    assert "its image (turned by its EXIF orientation)" in str(caught.value)
