"""Defects of users' own data: each is one line and exit code 2, with nothing left."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from tests.cli.conftest import expect_one_error_line
from tests.data import sources
from tests.data.test_formats import H, W, coco_tree, labelme_file, labelme_shape

CLASSES = ["background", "crop", "weed"]
COLORS = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 0]], np.uint8)


def image(seed=0, size=(H, W)):
    return sources.png(sources.image(np.random.default_rng(seed), *size))


def ids(seed=0, size=(H, W)):
    return np.random.default_rng(seed).integers(0, 3, size).astype(np.uint8)


def folder():
    """Four images with masks of class ids."""
    files = {"classes.txt": "\n".join(CLASSES).encode()}
    for i in range(4):
        files |= {f"images/{i}.png": image(i), f"masks/{i}.png": sources.png(ids(i))}
    return files


def colored():
    """Four images with masks in three colors."""
    masks = {f"masks/{i}.png": sources.png(COLORS[ids(i)]) for i in range(4)}
    return folder() | masks | {"classes.txt": None}


def coco(change=None):
    """An image with two polygons; `change` edits the annotations."""
    files = coco_tree(lambda *names: {name: image() for name in names})
    content = json.loads(files["annotations.json"])
    if change:
        change(content)
    return files | {"annotations.json": json.dumps(content).encode()}


def first(table, **values):
    return coco(lambda content: content[table][0].update(values))


def twice(table):
    return coco(lambda content: content[table].append(content[table][0]))


def labelme(points):
    return {
        "a.png": image(),
        "a.json": labelme_file("a.png", [labelme_shape("x", points)]),
    }


def saved(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def palette(colors):
    picture = PIL.Image.fromarray(ids(), "P")
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    return saved(picture, "PNG")


def turned():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return saved(PIL.Image.open(io.BytesIO(image())), "JPEG", exif=exif)


def noisy(seed):
    large = COLORS[ids(seed)].repeat(8, 0).repeat(8, 1)
    picture = PIL.Image.open(io.BytesIO(sources.png(large, "JPEG")))
    return sources.png(np.array(picture.resize((W, H), PIL.Image.Resampling.NEAREST)))


def everywhere(mask):
    return folder() | {f"masks/{i}.png": mask for i in range(4)} | {"classes.txt": None}


FOLDER = {
    "missing mask": (folder() | {"masks/2.png": None}, ["images/2.png has no mask"]),
    "missing image": (folder() | {"images/2.png": None}, ["masks/2.png has no image"]),
    "no masks": (
        folder() | {f"masks/{i}.png": None for i in range(4)},
        ["masks/"],
    ),
    "no images": (
        folder() | {f"images/{i}.png": None for i in range(4)},
        ["has masks and no images"],
    ),
    "an image twice": (folder() | {"images/2.jpg": image()}, ["have the same stem"]),
    "two folders of masks": (
        folder() | {"labels/2.png": sources.png(ids())},
        ["labels", "masks", "can both be meant"],
    ),
    "empty file": (folder() | {"masks/2.png": b""}, ["masks/2.png is broken"]),
    "truncated image": (folder() | {"images/2.png": image()[:99]}, ["is broken"]),
    "not an image": (folder() | {"images/2.png": b"<html>"}, ["2.png is broken"]),
    "other size": (
        folder() | {"masks/2.png": sources.png(ids(size=(W, H)))},
        ["is 20x30 pixels: needed 30x20, the size of its image"],
    ),
    "turned photograph": (
        folder() | {"images/2.png": None, "images/2.jpg": turned()},
        ["turned by its EXIF orientation"],
    ),
    "other mode of an image": (
        folder() | {"images/2.png": sources.png(ids().astype(np.uint16))},
        ["2.png holds uint16 of 1 channels", "needed the same dtype"],
    ),
    "float mask": (
        folder() | {"masks/2.png": None, "masks/2.tif": sources.png(ids() / 2, "TIFF")},
        ["holds float"],
    ),
    "JPEG mask": (
        folder() | {"masks/2.png": sources.png(ids(), "JPEG")},
        ["masks/2.png has lossy compression"],
    ),
    "unknown id": (
        folder() | {"masks/2.png": sources.png(ids() + 1)},
        ["holds id 3: needed one of 0-2, 255", "classes.txt names 3 classes"],
    ),
    "class twice": (folder() | {"classes.txt": b"a\nb\nb"}, ["all different"]),
    "class of control characters": (
        folder() | {"classes.txt": b"a\nb\n\x1b[2J"},
        ["classes.txt has the class name"],
    ),
    "masks of one class": (
        everywhere(sources.png(np.full((H, W), 1, np.uint8))),
        ["hold only class 1: needed at least two classes"],
    ),
    "empty masks": (
        everywhere(sources.png(np.zeros((H, W), np.uint8))),
        ["hold only class 0"],
    ),
    "void masks": (
        everywhere(sources.png(np.full((H, W), 255, np.uint8))),
        ["hold only the values 255"],
    ),
    "black and white": (
        everywhere(sources.png((ids() > 0).astype(np.uint8) * 255)),
        ["hold only the values 0, 255", "--ids 0 255"],
    ),
    "palettes that differ": (
        everywhere(palette(COLORS)) | {"masks/2.png": palette(COLORS[[0, 2, 1]])},
        ["different palettes: index 1 is #00ff00"],
    ),
    "colors beside class names": (
        colored() | {"classes.txt": b"a\nb\nc"},
        ["is a color image", "classes.csv"],
    ),
    "unknown color": (
        colored() | {"classes.csv": b"0,0,0,a\n0,255,0,b\n"},
        ["has the color #ff0000", "needed one of #000000, #00ff00"],
    ),
    "colors of JPEG noise": (
        colored() | {f"masks/{i}.png": noisy(i) for i in range(4)},
        ["colors: needed at most 64, one for each class", "never as JPEG"],
    ),
    "a table without colors": (
        colored() | {"classes.csv": b"0,0,0,a\n0,b\n"},
        ["classes.csv: row 2 is '0,b': needed rows r,g,b,name"],
    ),
}
COCO = {
    "polygon outside": (
        first("annotations", segmentation=[[40, 2, 45, 2, 45, 9]]),
        ["annotation 1 has a polygon from (40, 2) to (45, 9), outside"],
    ),
    "negative box": (
        first("annotations", bbox=[3, 1, -5, 2]),
        ["annotation 1 has the box [3, 1, -5, 2]"],
    ),
    "no polygon": (first("annotations", segmentation=[]), ["has no mask"]),
    "flat polygon": (
        first("annotations", segmentation=[1, 2, 3, 4, 5, 6]),
        ["is not a list of numbers"],
    ),
    "box null": (first("annotations", bbox=None), ["the bbox"]),
    "category 0": (first("annotations", category_id=0), ["has category 0: needed"]),
    "category null": (first("categories", name=None), ["the name"]),
    "crowd as text": (first("annotations", iscrowd="0"), ["the iscrowd '0'"]),
    "duplicate annotation": (twice("annotations"), ["a duplicate id"]),
    "duplicate image": (twice("images"), ["a duplicate id"]),
    "declared size": (first("images", width=31), ["needed 31x20, as its annotations"]),
    "size as text": (first("images", width="30"), ["the width '30'"]),
    "no annotations": (
        coco(lambda content: content["annotations"].clear()),
        ["has no annotation: needed the objects"],
    ),
    "missing file": (first("images", file_name="b.png"), ["the file b.png of image 1"]),
    "path traversal": (
        first("images", file_name="../images/a.png"),
        ["without ..; correct it"],
    ),
    "absolute path": (
        first("images", file_name="/etc/passwd"),
        ["the file /etc/passwd of image 1 is not in"],
    ),
    "run lengths": (
        first("annotations", segmentation={"size": [H, W], "counts": [200]}),
        ["add up to 200: needed 600"],
    ),
    "no JSON": (coco() | {"annotations.json": b"{"}, ["is not JSON"]),
}
LABELME = {
    "two points": (labelme([[1, 1], [2, 2]]), ["shape 1 ('x') has 2 points"]),
    "points outside": (
        labelme([[-9, -9], [-1, -9], [-1, -1]]),
        ["outside of its image of 30x20"],
    ),
    "points as text": (labelme([["a", "b"]] * 3), ["needed x and y"]),
    "no image": (labelme([[1, 1], [2, 2], [1, 2]]) | {"a.png": None}, ["no image"]),
}
ALL = (
    [("folder", name, *case) for name, case in FOLDER.items()]
    + [("coco", name, *case) for name, case in COCO.items()]
    + [("labelme", name, *case) for name, case in LABELME.items()]
)


@pytest.mark.parametrize(
    ("kind", "files", "words"),
    [pytest.param(k, files, words, id=f"{k}: {name}") for k, name, files, words in ALL],
)
def test_defects(segjax, tmp_path, monkeypatch, kind, files, words):
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(tmp_path / "prepared"))
    files = {name: content for name, content in files.items() if content is not None}
    source = sources.write(tmp_path / "mine", files)
    before = sorted(source.rglob("*"))
    if kind == "labelme":
        got = segjax("data", "import", kind, source, "--out", tmp_path / "out")
    else:
        got = segjax("data", "prepare", kind, "--source", source)
    expect_one_error_line(got, *words)
    assert len(got.err) < 800
    assert not got.out
    assert sources.leftovers(tmp_path / "prepared") == []
    assert not (tmp_path / "out").exists()
    assert sorted(source.rglob("*")) == before


def test_links_that_lead_nowhere_or_back(segjax, tmp_path):
    source = sources.write(tmp_path / "mine", folder())
    (source / "images/0.png").unlink()
    (source / "images/0.png").symlink_to("gone.png")
    got = segjax("data", "prepare", "folder", "--source", source)
    expect_one_error_line(got, "images/0.png")
    (source / "images/0.png").unlink()
    (source / "images/again").symlink_to(source / "images")
    got = segjax("data", "prepare", "folder", "--source", source)
    expect_one_error_line(got, "folders deep")


def test_the_files_without_defects_are_accepted(segjax, tmp_path):
    for kind, files in (("folder", folder()), ("folder", colored()), ("coco", coco())):
        files = {k: v for k, v in files.items() if v is not None}
        number = len(list(tmp_path.iterdir()))
        source = sources.write(tmp_path / str(number), files)
        assert segjax("data", "prepare", kind, "--source", source).code == 0
    source = sources.write(tmp_path / "mine", labelme([[1, 1], [9, 2], [4, 9]]))
    got = segjax("data", "import", "labelme", source, "--out", tmp_path / "out")
    assert got.code == 0
    assert got.out.startswith("Images: 1. Classes: 2 (background, x).\n")


def test_colors_are_listed_and_named(segjax, tmp_path):
    files = {k: v for k, v in colored().items() if v is not None}
    source = sources.write(tmp_path / "mine", files)
    table = tmp_path / "classes.csv"
    got = segjax("data", "colors", source, "--out", table)
    assert got.code == 0
    counts = np.bincount(np.concatenate([ids(i).ravel() for i in range(4)]))
    for color, count in zip(("#000000", "#00ff00", "#ff0000"), counts, strict=True):
        row = next(line for line in got.out.splitlines() if color in line)
        assert f"{count:,}" in row
        assert f"{100 * count / counts.sum():.2f} %" in row
    text = table.read_text()
    assert text.splitlines()[0] == "r,g,b,name"
    named = text.replace("color #00ff00", "crop").replace("color #000000", "void")
    table.write_text(named)
    got = segjax("data", "prepare", "folder", "--source", source, "--colors", table)
    assert got.code == 0
    assert "Classes: " in got.out
    assert "crop" in got.out
    assert "void" not in got.out
    expect_one_error_line(segjax("data", "colors", source, "--out", table), "exists")
