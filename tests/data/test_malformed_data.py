"""COCO files, instance folders, masks and class lists that are not as they must be.

Each ends in one ValueError line that names the file, before anything is prepared.
"""

import copy
import io
import json
import os
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile
from pycocotools import mask as coco_mask

from segjax import data
from segjax.data.builders import coco_shapes
from segjax.data.builders.sources import Zip
from segjax.data.objects import objects_of
from segjax.errors import UserError
from segjax.files import limits
from tests.data import sources

SIZE = (8, 12)
BOX = [1, 1, 6, 5]
SQUARE = [1, 1, 7, 1, 7, 6, 1, 6]
MISSING = object()


def content():
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 12}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": BOX,
                "segmentation": [SQUARE],
                "iscrowd": 0,
            }
        ],
    }


def changed(table, field, value):
    made = copy.deepcopy(content())
    if value is MISSING:
        del made[table][0][field]
    else:
        made[table][0][field] = value
    return made


def shape(value):
    return changed("annotations", "segmentation", value)


def runs(counts, size=SIZE):
    return shape({"size": list(size), "counts": counts})


def shuffled(counts):
    """COCO's compressed form of run lengths, by pycocotools."""
    rle = coco_mask.frPyObjects({"size": list(SIZE), "counts": counts}, *SIZE)
    return rle["counts"].decode()


COCO = {
    "empty": b"",
    "no object": b"[]",
    "a number": b"3",
    "null": b"null",
    "cut": json.dumps(content()).encode()[:-5],
    "deep": b"[" * 100_000,
    "deep inside": b'{"images": ' + b'{"a":' * 50_000,
    "latin-1": json.dumps(content()).replace("cat", "Bär").encode("latin-1"),
    "long number": b'{"images": [' + b"9" * 5000 + b"]}",
    "no images": {k: v for k, v in content().items() if k != "images"},
    "images no list": content() | {"images": {}},
    "image no object": content() | {"images": [7]},
    "image null": content() | {"images": [None]},
    "two of one id": content() | {"images": content()["images"] * 2},
    "two of one file": content()
    | {"images": [*content()["images"], content()["images"][0] | {"id": 2}]},
    "no file name": changed("images", "file_name", MISSING),
    "file name null": changed("images", "file_name", None),
    "file name number": changed("images", "file_name", 3),
    "file name list": changed("images", "file_name", ["a.png"]),
    "file name up": changed("images", "file_name", "../a.png"),
    "file name inside and up": changed("images", "file_name", "x/../../a.png"),
    "file name windows": changed("images", "file_name", "..\\a.png"),
    "file name absolute": changed("images", "file_name", "/etc/hostname"),
    "file name zero": changed("images", "file_name", "a\0.png"),
    "file name empty": changed("images", "file_name", ""),
    "id list": changed("images", "id", [1]),
    "id true": changed("images", "id", True),
    "id float": changed("images", "id", 1.5),
    "height text": changed("images", "height", "8"),
    "height zero": changed("images", "height", 0),
    "height negative": changed("images", "height", -8),
    "height float": changed("images", "height", 8.5),
    "height nan": changed("images", "height", float("nan")),
    "height huge": changed("images", "height", 10**30),
    "pixels": changed("images", "height", limits.MAX_PIXELS // 12 + 1),
    "other height": changed("images", "height", 9),
    "category text": changed("categories", "id", "1"),
    "category name null": changed("categories", "name", None),
    "category name empty": changed("categories", "name", ""),
    "category name escapes": changed("categories", "name", "\x1b[31mred"),
    "category name surrogate": changed("categories", "name", "\ud800"),
    "category list": changed("annotations", "category_id", [1]),
    "category null": changed("annotations", "category_id", None),
    "image id object": changed("annotations", "image_id", {}),
    "box of three": changed("annotations", "bbox", [1, 2, 3]),
    "box text": changed("annotations", "bbox", ["1", 1, 1, 1]),
    "box null": changed("annotations", "bbox", None),
    "box nan": changed("annotations", "bbox", [float("nan"), 1, 1, 1]),
    "box huge": changed("annotations", "bbox", [10**400, 1, 1, 1]),
    "crowd text": changed("annotations", "iscrowd", "yes"),
    "crowd two": changed("annotations", "iscrowd", 2),
    "no shape": shape([]),
    "shape null": shape(None),
    "shape text": shape("polygon"),
    "polygon flat": shape(SQUARE),
    "polygon text": shape([["1"] * 6]),
    "polygon null": shape([[None] * 6]),
    "polygon odd": shape([[1, 2, 3, 4, 5, 6, 7]]),
    "polygon two points": shape([[1, 2, 3, 4]]),
    "polygon inf": shape([[1, 2, 3, 4, 5, float("inf")]]),
    "polygon 1e9": shape([[0, 0, 1e9, 0, 1e9, 1e9]]),
    "polygon -1e9": shape([[0, 0, -1e9, 0, 4, 4]]),
    "polygon huge": shape([[0, 0, 10**400, 0, 4, 4]]),
    "runs too few": runs([96 - 1]),
    "runs too many": runs([90, 7]),
    "runs negative": runs([100, -4]),
    "runs float": runs([95.0, 1.0]),
    "runs text in list": runs(["96"]),
    "runs null": runs(None),
    "runs missing": shape({"size": list(SIZE)}),
    "runs size": runs([96], (12, 8)),
    "runs size text": runs([96], "ab"),
    "runs wrap": runs([2**64 + 96]),
    "compressed too few": runs(shuffled([50, 45])),
    "compressed empty": runs(""),
    "compressed cut": runs(shuffled([20, 70, 6])[:-1]),
    "compressed letters": runs("ÄÖ"),
    "compressed endless": runs("o" * 30),
    "compressed zero": runs("1\0"),
}


@pytest.fixture
def picture(rng):
    return sources.png(sources.image(rng, *SIZE))


@pytest.fixture
def refused(tmp_path):
    """Returns the one-line message of a builder's error."""

    def refused(files, build=data.coco, **options):
        source = sources.write(tmp_path / "mine", files)
        with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
            build(source, data_dir=tmp_path / "prepared", **options)
        assert isinstance(error.value, UserError)
        assert sources.leftovers(tmp_path / "prepared") == []
        return str(error.value)

    return refused


@pytest.mark.parametrize("made", COCO.values(), ids=COCO.keys())
def test_coco(refused, picture, made):
    text = made if isinstance(made, bytes) else json.dumps(made).encode()
    got = refused({"annotations.json": text, "images/a.png": picture})
    assert "annotations.json" in got or "images/a.png is 12x8" in got
    assert len(got) < 600


def test_coco_of_right_run_lengths(tmp_path, picture):
    """Valid run lengths are read, compressed or not."""
    for number, counts in enumerate(([9, 80, 7], shuffled([9, 80, 7]))):
        text = json.dumps(runs(counts)).encode()
        source = sources.write(
            tmp_path / str(number), {"annotations.json": text, "images/a.png": picture}
        )
        made = data.coco(
            source, data_dir=tmp_path / "prepared", validation=0.0, test=0.0
        )
        (mask,) = objects_of(made.splits["train"][0]).masks
        want = np.repeat([0, 1, 0], [9, 80, 7]).reshape(SIZE, order="F")
        np.testing.assert_array_equal(mask, want)


def test_compressed_run_lengths_are_read_as_pycocotools_reads_them(rng):
    for _ in range(100):
        height, width = rng.integers(1, 200, 2)
        mask = (rng.random((height, width)) > rng.random()).astype(np.uint8)
        rle = coco_mask.encode(np.asfortranarray(mask))
        lengths = coco_shapes._uncompressed(rle["counts"].decode())
        size = [int(height), int(width)]
        again = coco_mask.frPyObjects({"size": size, "counts": lengths}, *size)
        assert again == rle


def test_coco_of_an_endless_outline(refused, picture, monkeypatch):
    monkeypatch.setattr(limits, "MAX_OUTLINE", 100)
    text = json.dumps(shape([[0, 0, 12, 8] * 20])).encode()
    got = refused({"annotations.json": text, "images/a.png": picture})
    assert "has an outline of 576.9 pixels: needed at most 100" in got


NPY = "instances/a.npy"


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(shape, descr="<u2"):
    """A short .npy file whose header declares more."""
    good = saved(np.zeros(SIZE, np.uint16))
    old = f"'descr': '<u2', 'fortran_order': False, 'shape': {SIZE}, }}".encode()
    new = f"'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    assert old in good
    return good.replace(old + b" " * (len(new) - len(old)), new)


def jpeg(quality=90, **options):
    file = io.BytesIO()
    picture = PIL.Image.fromarray(np.zeros(SIZE, np.uint8))
    picture.save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def saved_as(format, pixels=None, **options):
    file = io.BytesIO()
    pixels = np.zeros((*SIZE, 3), np.uint8) if pixels is None else pixels
    PIL.Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def as_tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


ZEROS = np.zeros(SIZE, np.uint16)
PAGES = np.stack([ZEROS] * 3)
COLORS = np.arange(288, dtype=np.uint8).reshape(*SIZE, 3)
MAPS = {
    "empty": ("instances/a.png", b""),
    "text": ("instances/a.png", b"hello"),
    "signature": ("instances/a.png", b"\x89PNG\r\n\x1a\n"),
    "cut": ("instances/a.png", sources.png(ZEROS)[:-20]),
    "no end": ("instances/a.png", sources.png(ZEROS)[:-12]),
    "color": ("instances/a.png", saved_as("PNG", COLORS)),
    "size": ("instances/a.png", sources.png(ZEROS.T)),
    "jpeg": ("instances/a.jpg", jpeg()),
    "jpeg named png": ("instances/a.png", jpeg()),
    "webp with loss": ("instances/a.webp", saved_as("WEBP", quality=80)),
    "tiff with loss": ("instances/a.tif", saved_as("TIFF", compression="jpeg")),
    "eps named png": ("instances/a.png", saved_as("EPS")),
    "ppm named png": ("instances/a.png", saved_as("PPM")),
    "float tiff": ("instances/a.tif", as_tiff(ZEROS.astype(np.float32))),
    "pages": ("instances/a.tif", as_tiff(PAGES, photometric="minisblack")),
    "tiff cut": ("instances/a.tif", as_tiff(ZEROS)[:100]),
    "npy empty": (NPY, b""),
    "npy cut": (NPY, saved(ZEROS)[:-1]),
    "npy longer": (NPY, saved(ZEROS) + b"1"),
    "npy float": (NPY, saved(ZEROS / 2)),
    "npy complex": (NPY, saved(ZEROS * 1j)),
    "npy text": (NPY, saved(ZEROS.astype("U3"))),
    "npy dates": (NPY, saved(ZEROS.astype("M8[s]"))),
    "npy objects": (NPY, saved(ZEROS.astype(object), allow_pickle=True)),
    "npy records": (NPY, saved(np.zeros(SIZE, [("a", "u1"), ("b", "u1")]))),
    "npy 1-D": (NPY, saved(ZEROS.ravel())),
    "npy 0-D": (NPY, saved(np.uint16(3))),
    "npy 4-D": (NPY, saved(ZEROS[None, ..., None])),
    "npy channels": (NPY, saved(np.arange(192).reshape(*SIZE, 2))),
    "npy negative": (NPY, saved(ZEROS.astype(int) - 1)),
    "npy huge shape": (NPY, header((2**31, 2**31))),
    "npy huge row": (NPY, header((1, 2**62))),
    "npy negative shape": (NPY, header((-8, -12))),
    "npy zero bytes": (NPY, header((2**40, 2**40), "V0")),
    "npy code": (NPY, header((8, 12), "O")),
    "npy header": (NPY, saved(ZEROS)[:12] + b"(" * 100),
}  # fmt: skip


@pytest.mark.parametrize("where", ["instances", "masks"])
@pytest.mark.parametrize("made", MAPS.values(), ids=MAPS.keys())
def test_maps(refused, picture, made, where):
    name, text = made
    name = name.replace("instances", where)
    build = {"instances": data.instance_folder, "masks": data.folder}[where]
    got = refused({name: text, "images/a.png": picture}, build)
    assert name in got
    assert len(got) < 600


@pytest.mark.parametrize("name", ["images/a.png", "masks/a.png", "classes.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused_at_once(refused, picture, tmp_path, name, kind):
    files = {"images/a.png": picture, "masks/a.png": sources.png(np.zeros(SIZE, "u1"))}
    files.pop(name, None)
    path = sources.write(tmp_path / "mine", files) / name
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    got = refused(files, data.folder)
    assert f"{path} is a {kind}" in got


def test_a_pipe_as_annotations_or_source(refused, picture, tmp_path):
    path = sources.write(tmp_path / "mine", {"images/a.png": picture})
    os.mkfifo(path / "annotations.json")
    assert "annotations.json is a pipe" in refused({})
    os.mkfifo(tmp_path / "mine.zip")
    with pytest.raises(ValueError, match="is a pipe or device"):
        data.coco(tmp_path / "mine.zip", data_dir=tmp_path / "prepared")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Bär\nRad".encode("latin-1"), "classes.txt is not UTF-8 text"),
        ("Bar\nRad".encode("utf-16-le"), "class name"),
        (b"a\n\x1b[2Jb", "class name"),
        (b"a\na", "2 classes, 1 of them different"),
        (b"", "0 classes"),
    ],
)
def test_class_lists(refused, picture, text, words):
    files = {"images/a.png": picture, "masks/a.png": sources.png(np.zeros(SIZE, "u1"))}
    assert words in refused(files | {"classes.txt": text}, data.folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_class_lists_of_editors(tmp_path, picture, encoding):
    files = {
        "images/a.png": picture,
        "masks/a.png": sources.png(np.eye(*SIZE, dtype="u1")),
    }
    text = "Bär\nlane [solid]\n".encode(encoding)
    source = sources.write(tmp_path / "mine", files | {"classes.txt": text})
    made = data.folder(source, data_dir=tmp_path / "prepared")
    assert made.classes == ("Bär", "lane [solid]")


def test_zips_that_unpack_to_too_much(tmp_path, picture):
    bomb = bytes(limits.ZIP_FREE + 1)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("images/a.png", picture)
        made.writestr("masks/a.png", bomb)
    assert (tmp_path / "mine.zip").stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"masks/a.png unpacks to 67,108,865 bytes"):
        data.folder(tmp_path / "mine.zip", data_dir=tmp_path / "prepared")


def test_zips_of_too_many_entries_or_two_of_a_name(tmp_path, monkeypatch):
    path = sources.zipped(tmp_path / "a.zip", {"a": b"", "b": b"", "c": b""})
    monkeypatch.setattr(limits, "ZIP_ENTRIES", 2)
    with pytest.raises(ValueError, match="has 3 entries: needed at most 2"):
        Zip(path, "a")
    # Two names of equal length; the second is replaced by the first.
    path.write_bytes(path.read_bytes().replace(b"b", b"a"))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="two entries with the same name"):
        Zip(path, "a")


def test_large_files_are_refused_by_their_headers(refused, picture, tmp_path):
    sparse = as_tiff(np.zeros((4, 4), np.uint16))
    huge = saved_as("PNG", np.zeros((1, 1), np.uint8)).replace(
        (1).to_bytes(4) * 2, (20_000).to_bytes(4) * 2
    )
    head = huge.index(b"IHDR")
    crc = zlib.crc32(huge[head : head + 17]).to_bytes(4)
    huge = huge[: head + 17] + crc + huge[head + 21 :]
    mask = {"masks/a.png": sources.png(np.zeros(SIZE, "u1"))}
    got = refused({"images/a.png": huge} | mask, data.folder)
    assert "images/a.png is 20000x20000 pixels: needed at most 268,435,456" in got
    wide = bytearray(sparse)
    with tifffile.TiffFile(io.BytesIO(sparse)) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = file.pages[0].tags[name]
            size = 2 if tag.dtype == 3 else 4
            big = 65_535
            wide[tag.valueoffset : tag.valueoffset + size] = big.to_bytes(
                size, "little"
            )
    (tmp_path / "mine/images/a.png").unlink()
    got = refused({"images/a.tif": bytes(wide)} | mask, data.folder)
    assert "images/a.tif is 65535x65535 pixels" in got
