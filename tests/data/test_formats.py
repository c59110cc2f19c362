"""Annotations as other tools write them, read and written as plain folders."""

import base64
import json

import numpy as np
import pytest
from skimage.draw import polygon as scikit_polygon

from segjax import data
from segjax.data import formats
from segjax.data.builders.sources import Folder, Zip
from segjax.data.formats import polygons
from segjax.data.objects import objects_of
from segjax.errors import UserError
from tests.data import sources

H, W = 20, 30
TRIANGLE = [[3.5, 2.25], [17.8, 4.5], [9.1, 15.9]]
CONCAVE = [[12.3, 1.2], [28.6, 1.7], [28.1, 18.4], [20.2, 6.1], [13.4, 18.8]]


def truth(points, size=(H, W)):
    """What scikit-image fills: points less half a pixel, as pixels are centers."""
    x, y = np.array(points).T - 0.5
    mask = np.zeros(size, bool)
    mask[scikit_polygon(y, x, size)] = True
    return mask


@pytest.fixture
def photos(rng):
    def photos(*names):
        return {name: sources.png(sources.image(rng, H, W)) for name in names}

    return photos


@pytest.fixture
def convert(tmp_path):
    """Writes a tree, imports it, and reads the result as a data set."""

    def convert(read, files, *, objects=False):
        source = sources.write(tmp_path / "theirs", files)
        formats.write(read(Folder(source)), tmp_path / "ours", objects=objects)
        load = data.coco if objects else data.folder
        options = {"validation": 0.0, "test": 0.0, "data_dir": tmp_path / "prepared"}
        return load(tmp_path / "ours", **options)

    return convert


def labels(made, split="train"):
    return {e["name"]: e["label"] for e in made.splits[split]}


def test_polygons_are_those_of_scikit_image(rng):
    for _ in range(200):
        points = rng.uniform(-5, 35, (rng.integers(3, 9), 2))
        np.testing.assert_array_equal(polygons.fill(points, (H, W)), truth(points))


def test_polygons_with_corners_between_pixels():
    square = np.array([[2, 3], [7, 3], [7, 5], [2, 5]], float)
    want = np.zeros((H, W), bool)
    want[3:5, 2:7] = True
    for turned in (square, square[::-1]):
        np.testing.assert_array_equal(polygons.fill(turned, (H, W)), want)
    cross = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)  # Even-odd.
    filled = polygons.fill(cross, (H, W))
    assert filled[5, 0]
    assert filled[5, 9]
    assert not filled[0, 5]


def labelme_shape(label, points, kind="polygon", **more):
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    } | more


def labelme_file(image, shapes):
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": H,
        "imageWidth": W,
    }
    return json.dumps(content).encode()


@pytest.fixture
def labelme_tree(photos):
    mask = np.zeros((4, 5), np.uint8)
    mask[1:, 2:] = 255
    encoded = base64.b64encode(sources.png(mask)).decode()
    return photos("a.png", "deep/b.png") | {
        "a.json": labelme_file(
            "a.png",
            [
                labelme_shape("weed", TRIANGLE),
                labelme_shape("crop", CONCAVE, group_id=1),
                labelme_shape("crop", [[0, 18], [3, 20]], "rectangle", group_id=1),
                labelme_shape("row", [[1, 1], [2, 2]], "line"),
            ],
        ),
        "deep/b.json": labelme_file(
            "..\\deep\\b.png",
            [
                labelme_shape("weed", [[10, 10], [10, 14]], "circle"),
                labelme_shape("crop", [[20, 3], [24, 6]], "mask", mask=encoded),
                labelme_shape("__ignore__", [[0, 0], [30, 2]], "rectangle"),
            ],
        ),
    }


def test_labelme(convert, labelme_tree, tmp_path):
    made = convert(formats.labelme, labelme_tree)
    assert made.classes == ("background", "crop", "row", "weed")
    got = labels(made)
    want = np.where(truth(CONCAVE), 1, np.where(truth(TRIANGLE), 3, 0))
    want[18:, :3] = 1
    np.testing.assert_array_equal(got["a"], want)
    y, x = np.mgrid[:H, :W] + 0.5
    want = np.where((x - 10) ** 2 + (y - 10) ** 2 < 16, 3, 0)
    want[4:7, 22:25] = 1
    want[:2] = 255
    np.testing.assert_array_equal(got["deep/b"], want)
    found = formats.labelme(Folder(tmp_path / "theirs"))
    assert found.notes == ("lines and points are left out: 1.",)


def test_labelme_objects_of_one_group_are_one(convert, labelme_tree):
    made = convert(formats.labelme, labelme_tree, objects=True)
    found = {e["name"]: objects_of(e) for e in made.splits["train"]}
    crop = truth(CONCAVE)
    crop[18:, :3] = True
    np.testing.assert_array_equal(found["a"].classes, [3, 1])
    np.testing.assert_array_equal(found["a"].masks, [truth(TRIANGLE), crop])


def test_labelme_labels_in_the_order_of_a_list(convert, labelme_tree):
    labelme_tree["labels.txt"] = b"__ignore__\n_background_\nweed\nrow\ncrop\n"
    assert convert(formats.labelme, labelme_tree).classes == (
        "background",
        "weed",
        "row",
        "crop",
    )


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><id>7</id><name>fields</name><labels>
<label><name>weed</name><color>#fa3253</color><type>any</type><attributes/></label>
<label><name>crop</name><color>#33ddff</color><type>any</type><attributes/></label>
</labels></task></meta>
<image id="0" name="a.png" {subset}width="30" height="20">
<polygon label="crop" source="manual" occluded="0" points="{concave}" z_order="1">
<attribute name="age">3</attribute></polygon>
<polygon label="weed" source="manual" occluded="0" points="{triangle}" z_order="0"/>
<mask label="weed" source="manual" occluded="0" rle="2, 3, 4, 6" left="1" top="16"
 width="5" height="3" z_order="2"/>
<polyline label="crop" points="1.0,1.0;5.0,5.0" z_order="0"/></image>
<image id="1" name="deep/b.png" {subset}width="30" height="20">
<box label="crop" xtl="4.0" ytl="2.0" xbr="9.0" ybr="7.0" z_order="0"/>
<box label="weed" xtl="20.0" ytl="5.0" xbr="26.0" ybr="7.0" rotation="90.0"/>
<ellipse label="weed" cx="10.0" cy="12.0" rx="4.0" ry="2.0" z_order="0"/></image>
</annotations>"""


def joined(points):
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)


def cvat_file(subset=""):
    text = CVAT.format(
        subset=subset, concave=joined(CONCAVE), triangle=joined(TRIANGLE)
    )
    return {"annotations.xml": text.encode()}


def test_cvat(convert, photos):
    made = convert(
        formats.cvat, photos("images/a.png", "images/deep/b.png") | cvat_file()
    )
    assert made.classes == ("background", "weed", "crop")
    got = labels(made)
    want = np.where(truth(CONCAVE), 2, np.where(truth(TRIANGLE), 1, 0))
    runs = np.repeat([False, True, False, True], [2, 3, 4, 6]).reshape(3, 5)
    want[16:19, 1:6][runs] = 1
    np.testing.assert_array_equal(got["a"], want)
    y, x = np.mgrid[:H, :W] + 0.5
    want = np.zeros((H, W), int)
    want[2:7, 4:9] = 2
    want[3:9, 22:24] = 1
    want[((x - 10) / 4) ** 2 + ((y - 12) / 2) ** 2 < 1] = 1
    np.testing.assert_array_equal(got["deep/b"], want)


def test_cvat_turns_boxes_clockwise(convert, photos):
    text = """<annotations><image name="a.png" width="30" height="20">
    <box label="x" xtl="7" ytl="9" xbr="23" ybr="11" rotation="30"/></image>
    </annotations>"""
    made = convert(
        formats.cvat, photos("images/a.png") | {"annotations.xml": text.encode()}
    )
    y, x = np.mgrid[:H, :W] + 0.5
    # Turned by 30 degrees, its right end is lower, as y points down.
    along = (x - 15) * np.cos(np.pi / 6) + (y - 10) * np.sin(np.pi / 6)
    across = (y - 10) * np.cos(np.pi / 6) - (x - 15) * np.sin(np.pi / 6)
    want = (np.abs(along) < 8) & (np.abs(across) < 1)
    np.testing.assert_array_equal(labels(made)["a"], want)


def test_cvat_subsets_are_splits(tmp_path, photos):
    files = photos("images/Train/a.png") | photos("images/Train/deep/b.png")
    text = cvat_file('subset="Train" ')["annotations.xml"]
    text = text.replace(b'name="a', b'name="Train/a').replace(b'"deep', b'"Train/deep')
    path = sources.zipped(tmp_path / "t.zip", files | {"annotations.xml": text})
    found = formats.cvat(Zip(path, "t"))
    assert [item.split for item in found.items] == ["train", "train"]


@pytest.mark.parametrize("layout", ["{0}/{1}", "{1}/{0}"])
def test_yolo(convert, photos, layout):
    def line(number, points):
        return " ".join([str(number), *(f"{x / W} {y / H}" for x, y in points)])

    texts = {"train": f"{line(1, CONCAVE)}\n{line(0, TRIANGLE)}\n", "val": ""}
    files = {"data.yaml": b"train: images/train\nval: x\nnc: 2\nnames: [crop, weed]\n"}
    for split, text in texts.items():
        image, label = (layout.format(k, split) for k in ("images", "labels"))
        files |= photos(f"{image}/a.png") | {f"{label}/a.txt": text.encode()}
    files |= photos(layout.format("images", "train") + "/empty.png")
    made = convert(formats.yolo, files)
    assert made.classes == ("background", "crop", "weed")
    big, small = truth(CONCAVE), truth(TRIANGLE)
    want = np.where(small, 1, np.where(big, 2, 0))
    assert big.sum() > small.sum()
    got = labels(made)
    np.testing.assert_array_equal(got["a"], want)
    assert not got["empty"].any()
    assert not labels(made, "validation")["a"].any()


def test_yolo_names_by_number(tmp_path, photos):
    text = b"0 0.1 0.1 0.5 0.1 0.5 0.5\n"
    names = b"names:\n  1: weed\n  0: crop\n"
    files = photos("images/train/a.png") | {"labels/train/a.txt": text, "d.yml": names}
    found = formats.yolo(Folder(sources.write(tmp_path / "y", files)))
    assert found.classes == ("background", "crop", "weed")


def voc_palette_png(ids):
    """A palette PNG with VOC's colormap, as the data set and its tools write it."""
    import io

    import PIL.Image

    colors = np.zeros((256, 3), np.uint8)
    for index in range(256):
        rest = index
        for bit in range(7, -1, -1):
            for channel in range(3):
                colors[index, channel] |= (rest >> channel & 1) << bit
            rest >>= 3
    picture = PIL.Image.fromarray(ids.astype(np.uint8), "P")
    picture.putpalette(colors.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def voc_tree(photos, rng):
    files, classes, numbers = {}, {}, {}
    for name in ("2007_000032", "2007_000039", "2007_000063"):
        ids = np.zeros((H, W), int)
        ids[2:8, 3:9], ids[10:18, 4:20], ids[10:18, 20:28] = 1, 15, 15
        objects = np.zeros((H, W), int)
        objects[2:8, 3:9], objects[10:18, 4:20], objects[10:18, 20:28] = 1, 2, 3
        ids[2, 3:9] = objects[2, 3:9] = 255  # The outline.
        files |= photos(f"VOC2012/JPEGImages/{name}.png") | {
            f"VOC2012/SegmentationClass/{name}.png": voc_palette_png(ids),
            f"VOC2012/SegmentationObject/{name}.png": voc_palette_png(objects),
        }
        classes[name], numbers[name] = ids, objects
    lists = {"train": b"2007_000032\n2007_000039\n", "val": b"2007_000063\n"}
    lists["trainval"] = lists["train"] + lists["val"]
    for name, text in lists.items():
        files[f"VOC2012/ImageSets/Segmentation/{name}.txt"] = text
    return files, classes, numbers


def test_pascal_voc(convert, voc_tree):
    files, classes, _ = voc_tree
    made = convert(formats.pascal_voc, files)
    assert len(made.classes) == 21
    assert made.classes[15] == "person"
    assert set(labels(made)) == {"2007_000032", "2007_000039"}
    for split in ("train", "validation"):
        for name, label in labels(made, split).items():
            np.testing.assert_array_equal(label, classes[name])


def test_pascal_voc_objects(convert, voc_tree):
    files, _, numbers = voc_tree
    made = convert(formats.pascal_voc, files, objects=True)
    example = made.splits["train"][0]
    found, ids = objects_of(example), numbers[example["name"]]
    np.testing.assert_array_equal(found.classes, [1, 15, 15])
    np.testing.assert_array_equal(found.masks, [ids == 1, ids == 2, ids == 3])


def test_pascal_voc_as_cvat_exports_it(convert, photos, rng):
    ids = rng.choice(3, (H, W))
    colors = np.array([[61, 61, 245], [0, 0, 0], [250, 50, 83]], np.uint8)
    files = photos("JPEGImages/a.png") | {
        "SegmentationClass/a.png": sources.png(colors[ids]),
        "labelmap.txt": b"# label:color_rgb:parts:actions\ncrop:61,61,245::\n"
        b"background:0,0,0::\nweed:250,50,83::\n",
        "ImageSets/Segmentation/default.txt": b"a\n",
    }
    made = convert(formats.pascal_voc, files)
    assert made.classes == ("background", "crop", "weed")
    want = np.array([1, 0, 2])[ids]
    np.testing.assert_array_equal(labels(made)["a"], want)


def test_cityscapes(convert, photos, rng):
    files, ids = {}, {}
    for split, city in (("train", "aachen"), ("val", "munster"), ("test", "berlin")):
        name = f"{city}_000000_000019"
        ids[f"{city}/{name}"] = drawn = rng.integers(0, 34, (H, W)).astype(np.uint8)
        folder = f"gtFine/{split}/{city}/{name}_gtFine"
        files |= photos(f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png") | {
            f"{folder}_labelIds.png": sources.png(drawn),
            f"{folder}_instanceIds.png": sources.png(drawn.astype(np.uint16)),
            f"{folder}_color.png": sources.png(drawn),
            f"{folder}_polygons.json": b"{}",
        }
    made = convert(formats.cityscapes, files)
    assert made.classes[13] == "car"
    assert made.splits.keys() == {"train", "validation"}
    table = np.full(34, 255)  # From cityscapesScripts' labels.py.
    table[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22]] = np.arange(10)
    table[[23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(10, 19)
    for split in made.splits:
        for name, label in labels(made, split).items():
            np.testing.assert_array_equal(label, table[ids[name]])


def test_ade20k(convert, photos, rng):
    ids = rng.integers(0, 151, (H, W)).astype(np.uint8)
    rows = [f"{i} \t0.1 \t10 \t1 \tname{i}, other" for i in range(1, 151)]
    header = "Idx\tRatio\tTrain\tVal\tName"
    files = {"objectInfo150.txt": "\n".join([header, *rows]).encode()}
    for folder, name in (("training", "train"), ("validation", "val")):
        stem = f"{folder}/ADE_{name}_00000001"
        files |= photos(f"images/{stem}.png")
        files[f"annotations/{stem}.png"] = sources.png(ids)
    made = convert(formats.ade20k, files)
    assert made.classes[:2] == ("name1", "name2")
    want = np.where(ids == 0, 255, ids.astype(int) - 1)
    for split in ("train", "validation"):
        (label,) = labels(made, split).values()
        np.testing.assert_array_equal(label, want)


def coco_tree(photos):
    flat = [np.ravel(points).tolist() for points in (TRIANGLE, CONCAVE)]
    rows = [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": 5 + i,
            "bbox": [3, 1, 26, 18],
            "segmentation": [shape],
            "iscrowd": 0,
        }
        for i, shape in enumerate(flat)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 5, "name": "weed"}, {"id": 6, "name": "crop"}],
        "annotations": rows,
    }
    text = json.dumps(content).encode()
    return photos("images/a.png") | {"annotations.json": text}


@pytest.mark.parametrize("objects", [False, True])
def test_coco_round_trip_has_the_same_batches(convert, photos, tmp_path, objects):
    files = coco_tree(photos)
    options = {"validation": 0.0, "test": 0.0, "data_dir": tmp_path / "prepared"}
    theirs = data.coco(sources.write(tmp_path / "theirs", files), **options)
    ours = convert(formats.coco, files, objects=objects)
    assert ours.classes == theirs.classes == ("background", "weed", "crop")
    one, two = (
        next(
            data.Pipeline(
                dataset=made, size=16, max_objects=2 if objects else None
            ).train_batches(batch_size=2, seed=0)
        )
        for made in (theirs, ours)
    )
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


def test_zips_are_read_too(tmp_path, labelme_tree):
    path = sources.zipped(tmp_path / "t.zip", labelme_tree)
    formats.write(formats.labelme(Zip(path, "t")), tmp_path / "out", objects=False)
    found = sorted(
        str(p.relative_to(tmp_path / "out")) for p in tmp_path.rglob("out/**/*.*")
    )
    assert found == [
        "classes.txt",
        "images/a.png",
        "images/deep/b.png",
        "masks/a.png",
        "masks/deep/b.png",
    ]


def replaced(files, name, old, new):
    text = files[name].decode()
    assert old in text
    return files | {name: text.replace(old, new).encode()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f | {"a.json": b"{}"}, "a.json has no list of shapes"),
        (lambda f: f | {"a.json": b"["}, "a.json is not JSON"),
        (
            lambda f: {k: v for k, v in f.items() if k != "a.png"},
            "has no image 'a.png'",
        ),
        (
            lambda f: replaced(f, "a.json", '"imageWidth": 30', '"imageWidth": 31'),
            "31x20",
        ),
        (lambda f: replaced(f, "a.json", "3.5", "1e99"), "points that are not in its"),
        (lambda f: replaced(f, "a.json", "3.5", "NaN"), "points that are not in its"),
        (lambda f: replaced(f, "a.json", "3.5", '"x"'), "3 points: needed x and y"),
        (lambda f: replaced(f, "a.json", ", [9.1, 15.9]", ""), "has 2 points"),
        (
            lambda f: replaced(f, "deep/b.json", '"circle"', '"cube"'),
            "shape_type 'cube'",
        ),
        (lambda f: replaced(f, "deep/b.json", "[20, 3]", "[28, 3]"), "at (28, 3)"),
        (lambda f: f | {"labels.txt": b"weed\n"}, "does not list the label"),
        (lambda f: {"a.png": f["a.png"]}, "has no JSON file"),
    ],
)
def test_labelme_files_that_are_refused(convert, labelme_tree, tmp_path, change, words):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        convert(formats.labelme, change(labelme_tree))
    assert words in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]>
<annotations><image name="&c;"/></annotations>"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (None, BOMB, "declares a document type"),
        (None, b"<a><b></a>", "is not XML"),
        (None, b"<annotations/>", "has no <image>"),
        (b'name="a.png"', b'name="../a.png"', "lists the image '../a.png'"),
        (b'width="30"', b'width="3"', "declares 3x20 pixels"),
        (b'width="30"', b'width="3x"', "needed an integer"),
        (b'rle="2, 3, 4, 6"', b'rle="2, 3, 4, 7"', "add up to 16 for 5x3 pixels"),
        (b'rle="2, 3, 4, 6"', b'rle="2, 3, -4, 14"', "run lengths"),
        (b"3.50,2.25;17.80,4.50;", b"", "has 1 points"),
        (b"3.50,2.25", b"3.50,a", "needed numbers"),
        (b'xtl="4.0"', b'xtl="nan"', "needed 4 numbers"),
        (b'rx="4.0"', b'rx="0.0"', "needed more than 0"),
    ],
)
def test_cvat_files_that_are_refused(convert, photos, tmp_path, old, new, words):
    text = cvat_file()["annotations.xml"]
    text = new if old is None else text.replace(old, new, 1)
    assert text != cvat_file()["annotations.xml"]
    files = photos("images/a.png", "images/deep/b.png") | {"annotations.xml": text}
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        convert(formats.cvat, files)
    assert words in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"2 0.1 0.1 0.5 0.1 0.5 0.5", "the class '2': needed 0 to 1"),
        (b"0 0.1 0.1 0.5 0.1", "a box of four numbers"),
        (b"0 0.1 0.1 0.5 0.1 0.5", "has 5 numbers"),
        (b"0 0.1 0.1 0.5 0.1 0.5 50", "from 0 to 1"),
        (b"0 0.1 0.1 x 0.1 0.5 0.5", "numbers"),
        (b"0 1.1 0.1 1.5 0.1 1.5 0.5", "outside of its image"),
    ],
)
def test_yolo_files_that_are_refused(convert, photos, tmp_path, text, words):
    files = photos("images/train/a.png") | {
        "data.yaml": b"names: [crop, weed]",
        "labels/train/a.txt": text,
    }
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        convert(formats.yolo, files)
    assert words in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]


def test_a_folder_that_exists_is_refused(labelme_tree, tmp_path):
    found = formats.labelme(Folder(sources.write(tmp_path / "theirs", labelme_tree)))
    (tmp_path / "ours").mkdir()
    formats.write(found, tmp_path / "ours", objects=False)  # Empty: nothing is lost.
    with pytest.raises(UserError, match="exists: needed a new folder"):
        formats.write(found, tmp_path / "ours", objects=False)


def test_two_classes_of_one_name_are_refused(convert, photos):
    text = b"0 0.1 0.1 0.5 0.1 0.5 0.5\n"
    files = {"labels/train/a.txt": text, "data.yaml": b"names: [background, weed]\n"}
    with pytest.raises(UserError, match="has two classes called background"):
        convert(formats.yolo, photos("images/train/a.png") | files)


def test_formats_without_objects_say_so(convert, photos, rng, tmp_path):
    ids = sources.png(rng.integers(0, 151, (H, W)).astype(np.uint8))
    files = photos("images/training/a.png") | {"annotations/training/a.png": ids}
    with pytest.raises(UserError, match="has no objects in this format"):
        convert(formats.ade20k, files, objects=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]
