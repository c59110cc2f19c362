"""Damaged files by the hundred, from seeds: the right result, or one line of error.

Each kind takes half of SEGJAX_FAULTS of them, at least 40.
"""

import io
import json
import pathlib
import traceback
import tracemalloc

import jax
import numpy as np
import PIL.Image
import pytest
import tifffile

import segjax
from segjax import data, interop, model_file, models
from segjax.data.builders import annotations
from segjax.data.builders.sources import Folder, Zip
from segjax.errors import UserError
from segjax.forward import Forward
from tests.data import sources
from tests.data.test_dicom import written
from tests.faults.tally import CASES as ALL

CASES = max(40, ALL // 2)
SIZE = (12, 16)
SLACK = 2**28
"""Bytes that reading a damaged file of a few kilobytes may take at most."""

# Pillow and tifffile warn of what they do not read, and go on.
pytestmark = pytest.mark.filterwarnings("ignore")


def damaged(content, rng):
    """One of the things that happen to files, at a random place."""
    made, place = bytearray(content), int(rng.integers(len(content)))
    length = int(rng.integers(1, 64))
    match int(rng.integers(8)):
        case 0:
            made[place] ^= 1 << int(rng.integers(8))
        case 1:
            made[place : place + length] = rng.bytes(len(made[place : place + length]))
        case 2:
            del made[place:]
        case 3:
            del made[place : place + length]
        case 4:
            made[place:place] = rng.bytes(length)
        case 5:
            made += rng.bytes(length)
        case 6:
            other = int(rng.integers(len(content)))
            one, two = made[place : place + 8], made[other : other + 8]
            made[place : place + len(one)], made[other : other + len(two)] = two, one
            del made[len(content) :]
        case 7:
            # Numbers that headers have, as large as they can be.
            width = int(rng.choice([1, 2, 4, 8]))
            made[place : place + width] = b"\xff" * len(made[place : place + width])
    return bytes(made)


def as_png(pixels):
    return sources.png(pixels)


def as_tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def as_npy(pixels):
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def as_jpeg(pixels):
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    PIL.Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def as_webp(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "WEBP", lossless=True)
    return file.getvalue()


def as_gif(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "GIF")
    return file.getvalue()


GRAY = np.random.default_rng(1).integers(0, 4, SIZE).astype(np.uint8)
COLOR = np.random.default_rng(2).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
DEEP = GRAY.astype(np.uint16) * 9000
IMAGES = {
    "gray.png": as_png(GRAY),
    "color.png": as_png(COLOR),
    "deep.png": as_png(DEEP),
    "color.tif": as_tiff(COLOR),
    "deep.tif": as_tiff(DEEP),
    "packed.tif": as_tiff(DEEP, compression="zlib"),
    "float.tif": as_tiff(GRAY.astype(np.float32)),
    "deep.npy": as_npy(DEEP),
    "color.jpg": as_jpeg(COLOR),
    "color.webp": as_webp(COLOR),
    "gray.gif": as_gif(GRAY),
    "ct.dcm": written(DEEP, RescaleSlope="1", RescaleIntercept="-1024"),
}
CHECKED = (".png",)
"""Formats with checksums over all that counts: what is read is what was written."""


def one_line(work, name):
    """The result of `work`, or None if it ends in one ValueError that has `name`."""
    try:
        return work()
    except ValueError as error:
        caught = error
    # One of ours, not a foreign one that happens to have the name.
    assert isinstance(caught, UserError)
    *_, (frame, _) = traceback.walk_tb(caught.__traceback__)
    package = pathlib.Path(segjax.__file__).parent
    assert package in pathlib.Path(frame.f_code.co_filename).parents, caught
    assert name in str(caught)
    assert "\n" not in str(caught)
    return None


def cases(kind):
    seed = int.from_bytes(kind.encode()) % 2**32
    for number in range(CASES):
        yield np.random.default_rng([seed, number])


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path, name, tally):
    path, kind = tmp_path / name, f"file, {pathlib.Path(name).suffix[1:]}"
    path.write_bytes(IMAGES[name])
    whole = data.read_image(path)
    model_whole = segjax.inference.read_image(path, channels=whole.shape[-1])
    read = 0
    tracemalloc.start()
    for rng in cases(name):
        path.write_bytes(damaged(IMAGES[name], rng))
        for want, work in (
            (whole, lambda: data.read_image(path)),
            (
                model_whole,
                lambda: segjax.inference.read_image(path, channels=whole.shape[-1]),
            ),
        ):
            tally.case(kind)
            got = one_line(work, str(path))
            if got is None:
                tally.count("one line")
                continue
            read += 1
            # As stored: what the model then does not take, it names.
            assert got.ndim == 3
            assert got.dtype.kind in "buif"
            if path.suffix in CHECKED:
                np.testing.assert_array_equal(got, want)
            tally.count("right")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < SLACK
    assert read < 2 * CASES  # Damage is noticed at all.


def coco():
    polygon = [1, 1, 9, 1, 9, 8, 1, 8]
    box = [1, 1, 8, 7]
    one = {"image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0}
    runs = {"size": list(SIZE), "counts": [10, 30, SIZE[0] * SIZE[1] - 40]}
    packed = {"size": list(SIZE), "counts": "k0660000000000000U2"}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            one | {"id": 1, "segmentation": [polygon]},
            one | {"id": 2, "segmentation": runs},
            one | {"id": 3, "segmentation": packed},
        ],
    }


def test_annotations(tmp_path, tally):
    """Whatever is accepted is drawn, of its image's size, from memory that is ours."""
    sources.write(tmp_path, {"images/a.png": as_png(COLOR)})
    path, tree = tmp_path / "annotations.json", Folder(tmp_path)
    text = json.dumps(coco()).encode()
    path.write_bytes(text)
    (whole,) = annotations.read(tree, path.name, "images").images
    assert len(whole.annotations) == 3  # What is damaged below was right.
    for rng in cases("coco"):
        for _ in range(5):
            path.write_bytes(damaged(text, rng))
            tally.case("file, COCO")
            part = one_line(
                lambda: annotations.read(tree, path.name, "images"), str(path)
            )
            for image in [] if part is None else part.images:
                masks = [annotations.rle(x, image.size) for x in image.annotations]
                assert all(x["size"] == list(image.size) for x in masks)
            tally.count("one line" if part is None else "right")


def test_zips(tmp_path, tally):
    files = {"images/a.png": as_png(COLOR), "images/b.png": as_png(COLOR)}
    whole = sources.zipped(tmp_path / "whole.zip", files).read_bytes()
    path = tmp_path / "a.zip"

    def work():
        tree = Zip(path, "a")
        return {name: tree.read(name) for name in tree.files("images")}

    for rng in cases("zip"):
        path.write_bytes(damaged(whole, rng))
        tally.case("file, zip")
        got = one_line(work, str(path))
        # A name may change; contents have checksums.
        assert all(content in files.values() for content in (got or {}).values())
        tally.count("one line" if got is None else "right")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    module = models.SimpleCNN(num_classes=3, width=4)
    image = np.zeros((1, 16, 16, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), image)
    facts = {
        "classes": ["background", "square", "bar"],
        "image": {"channels": 3, "dtype": "uint8", "low": 0, "high": 255},
        "task": "semantic",
        "multiple": 16,
        "max_shapes": 2,
    }
    model_file.write(folder, Forward(module), variables, facts)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_models(tmp_path, model, tally):
    for name in sorted(model):
        for rng in cases(name[:5]):
            for other, content in model.items():
                (tmp_path / other).write_bytes(content)
            (tmp_path / name).write_bytes(damaged(model[name], rng))
            tally.case("file, model.json and its variables")
            got = one_line(lambda: segjax.load(tmp_path), str(tmp_path))
            tally.count("one line" if got is None else "right")


def test_tensors(tmp_path, model, tally):
    (whole,) = (x for name, x in model.items() if name.endswith(".safetensors"))
    path = tmp_path / "x.safetensors"
    for rng in cases("tensors"):
        path.write_bytes(damaged(whole, rng))
        tally.case("file, safetensors")
        got = one_line(lambda: interop.read_tensors(path), str(path))
        assert got is None or all(isinstance(x, np.ndarray) for x in got.values())
        tally.count("one line" if got is None else "right")


def test_preparing(tmp_path, tally):
    """End to end: a prepared data set, or nothing at all."""
    files = {f"images/{i}.png": as_png(COLOR) for i in range(3)}
    files |= {f"masks/{i}.png": as_png(GRAY) for i in range(3)}
    source, root = tmp_path / "mine", tmp_path / "prepared"
    for number, rng in enumerate(cases("prepare")):
        if number % 4:
            continue
        name = str(rng.choice(sorted(files)))
        sources.write(source, files | {name: damaged(files[name], rng)})
        before = sources.leftovers(root)
        tally.case("file, prepared with others")
        made = one_line(
            lambda: data.folder(source, data_dir=root, validation=0.0, test=0.0),
            str(source / name),
        )
        if made is None:
            assert sources.leftovers(root) == before
        else:
            assert [e["image"].tobytes() for e in made.splits["train"]] == (
                [COLOR.tobytes()] * 3
            )
        tally.count("one line" if made is None else "right")
