"""`segjax predict`: files, messages, and no code of the run without `--trust`."""

import errno
import json
import os
import struct
import zlib

import flax.linen as nn
import imageio.v3
import jax
import numpy as np
import pytest
import skimage.io
import tifffile
from PIL import Image

import segjax as package
from segjax import model_file, models, viz
from segjax.forward import Forward
from segjax.run_folder import manifest
from tests.cli.conftest import expect_one_error_line
from tests.scenes import experiment

SCRIPT = """
from tests import scenes
from tests.cli.test_predict import Mine

print("executed")

def experiment():
    return scenes.experiment(model=Mine())
"""


class Mine(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Conv(3, (1, 1))(image)


def write_run(
    folder,
    module,
    *,
    channels=3,
    dtype="uint8",
    classes=("background", "square", "bar"),
):
    image = np.zeros((1, 16, 16, channels), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), image)
    facts = {
        "classes": list(classes),
        "image": {"channels": channels, "dtype": dtype, "low": 0, "high": 255},
        "task": "semantic",
        "multiple": 16,
        "max_shapes": 2,
    }
    model_file.write(folder, Forward(module), variables, facts)
    return folder


@pytest.fixture
def cnn(tmp_path):
    folder = write_run(tmp_path / "run", models.SimpleCNN(num_classes=3))
    (folder / "experiment.py").write_text("raise SystemExit('executed')\n")
    return folder


def save_images(folder, sizes, dtype=np.uint8):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, size in enumerate(sizes):
        pixels = rng.integers(0, 256, size).astype(dtype)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_images_folders_and_globs(segjax, cnn, tmp_path):
    images = save_images(tmp_path / "images", [(9 + i, 30 - i, 3) for i in range(4)])
    out = tmp_path / "out"
    got = segjax("predict", cnn, images / "0.png", images / "[1-2].png", "--out", out)
    assert got.code == 0, got.err
    assert "3 label maps and overlays" in got.out
    names = [f"{i}{end}.png" for i in range(3) for end in ("", "_color", "_overlay")]
    assert sorted(p.name for p in out.iterdir()) == [".predict.json", *names]
    for i in range(3):
        prediction = package.load(cnn).predict(images / f"{i}.png")
        with Image.open(out / f"{i}.png") as label:
            assert label.mode == "L"  # OpenCV reads a palette as colors.
            np.testing.assert_array_equal(label, prediction.labels)
        color = np.asarray(Image.open(out / f"{i}_color.png"))
        np.testing.assert_array_equal(color, viz.palette(3)[prediction.labels])
        overlay = np.asarray(Image.open(out / f"{i}_overlay.png"))
        np.testing.assert_array_equal(overlay, prediction.overlay())
    assert segjax("predict", cnn, images, "--out", out).code == 0
    assert len(list(out.iterdir())) == 13


def png_values(path):
    """The numbers in a PNG: bit depth, color type, and the image, by its standard."""
    content, place, packed = path.read_bytes(), 8, b""
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        name, body = content[place + 4 : place + 8], content[place + 8 :][:length]
        if name == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", body[:10])
        packed += body if name == b"IDAT" else b""
        place += length + 12
    size = depth // 8
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1)
    made = np.zeros((height + 1, width * size + size), np.int64)
    for y, (kind, *row) in enumerate(rows.tolist(), start=1):
        for x, value in enumerate(row, start=size):
            left, up, corner = made[y, x - size], made[y - 1, x], made[y - 1, x - size]
            near = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
            paeth = (left, up, corner)[int(np.argmin(near))]
            made[y, x] = value + (0, left, up, (left + up) // 2, paeth)[kind] & 255
    pixels = made[1:, size:].astype(np.uint8).tobytes()
    return depth, color, np.frombuffer(pixels, f">u{size}").reshape(height, width)


@pytest.mark.parametrize("count", [3, 300])
def test_readers_get_class_ids_from_the_label_map(segjax, tmp_path, count):
    """8 bits, or 16 beyond 255 classes; gray, so that no reader makes it RGB."""
    names = [f"class {i}" for i in range(count)]
    module = models.SimpleCNN(num_classes=count)
    run = write_run(tmp_path / "run", module, classes=names)
    images, out = save_images(tmp_path / "images", [(16, 24, 3)]), tmp_path / "out"
    assert segjax("predict", run, images, "--out", out).code == 0
    want = package.load(run).predict(images / "0.png").labels
    depth, color, raw = png_values(out / "0.png")
    assert (depth, color) == (8 if count == 3 else 16, 0)
    assert raw.max() > (255 if count == 300 else 0)
    with Image.open(out / "0.png") as label:
        assert label.mode == ("L" if count == 3 else "I;16")
        read = [raw, np.asarray(label), skimage.io.imread(out / "0.png")]
    for found in [*read, imageio.v3.imread(out / "0.png")]:
        assert found.dtype.itemsize == want.dtype.itemsize
        np.testing.assert_array_equal(found, want)


def test_a_custom_model_needs_trust(segjax, tmp_path):
    run = write_run(tmp_path / "run", Mine())
    (run / "experiment.py").write_text(SCRIPT)
    found = manifest.describe(experiment(), flags={}, script=None)
    (run / "run.json").write_text(json.dumps(found))
    images = save_images(tmp_path / "images", [(16, 16, 3)])
    got = segjax("predict", run, images, "--out", tmp_path / "out")
    expect_one_error_line(got, run / "experiment.py", "--trust")
    assert "executed" not in got.out
    got = segjax("predict", run, images, "--out", tmp_path / "out", "--trust")
    assert got.code == 0, got.err
    assert f"note: executing {run / 'experiment.py'}" in got.err
    assert "executed" in got.out
    assert (tmp_path / "out/0.png").exists()


def test_messages(segjax, cnn, tmp_path):
    out = tmp_path / "out"
    expect_one_error_line(segjax("predict", cnn), "needs images")
    got = segjax("predict", cnn, tmp_path / "none*.png", "--out", out)
    expect_one_error_line(got, "none*.png", "holds no image")
    got = segjax("predict", cnn, tmp_path / "photos", "--out", out)
    expect_one_error_line(got, tmp_path / "photos", "does not exist")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    got = segjax("predict", cnn, bad, "--out", out)
    expect_one_error_line(got, bad, "cannot identify", code=1)
    real = tmp_path / "real.npy"
    np.save(real, np.zeros((16, 16, 3), np.float32))
    got = segjax("predict", cnn, real, "--out", out)
    expect_one_error_line(got, real, "[H, W, 3] of dtype uint8", "float32", code=1)
    got = segjax("predict", tmp_path, real, "--out", out)
    expect_one_error_line(got, tmp_path, "model.json is missing")
    twin = save_images(tmp_path / "twin", [(16, 16, 3)])
    (cnn / "model.json").write_text("{")
    got = segjax("predict", cnn, twin, "--out", out)
    expect_one_error_line(got, cnn / "model.json", "damaged")


def test_a_bad_image_is_skipped_and_listed(segjax, cnn, tmp_path):
    images = save_images(tmp_path / "images", [(9, 12, 3)] * 5)
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:60])
    np.save(images / "3.npy", np.zeros((4, 4, 2), np.uint16))
    (images / "3.png").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    out = tmp_path / "out"
    got = segjax("predict", cnn, tmp_path / "pipe.png", images, "--out", out)
    assert got.code == 1
    assert "3 label maps and overlays" in got.out
    errors = [x for x in got.err.splitlines() if x.startswith("error: ")]
    assert len(errors) == len(got.err.strip().splitlines()) == 3
    assert f"{tmp_path / 'pipe.png'} is a pipe" in errors[0]
    assert f"{images / '1.png'} is broken" in errors[1]
    assert f"[4, 4, 2] of dtype uint16 from {images / '3.npy'}" in errors[2]
    ends = ("", "_color", "_overlay")
    names = [f"{i}{end}.png" for i in (0, 2, 4) for end in ends]
    assert sorted(p.name for p in out.iterdir()) == [".predict.json", *names]


def test_images_are_never_overwritten(segjax, cnn, tmp_path):
    images = save_images(tmp_path / "images", [(9, 12, 3)])
    (tmp_path / "link").symlink_to(images)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/0.png").symlink_to(images / "0.png")
    before = (images / "0.png").read_bytes()
    for given in (images, images / "0.png", tmp_path / "link", tmp_path / "other"):
        for out in (images, tmp_path / "link"):
            got = segjax("predict", cnn, given, "--out", out)
            expect_one_error_line(got, "0.png", "another folder")
    assert (images / "0.png").read_bytes() == before
    assert [p.name for p in images.iterdir()] == ["0.png"]


def results(out):
    """Names of the results without their endings."""
    found = (p.relative_to(out).as_posix() for p in out.rglob("*_overlay.png"))
    return sorted(name.removesuffix("_overlay.png") for name in found)


def test_names_that_collide_keep_their_folders(segjax, cnn, tmp_path):
    for folder in ("a", "b", "b/c"):
        save_images(tmp_path / "in" / folder, [(9, 12, 3)] * 2)
    (tmp_path / "in/b/1.png").rename(tmp_path / "in/b/other.png")
    (tmp_path / "in/b/c/1.png").rename(tmp_path / "in/b/c/0.jpg")
    got = segjax("predict", cnn, tmp_path / "in", "--out", tmp_path / "out")
    assert got.code == 0, got.err
    names = ["1", "a/0", "b/0", "b/c/0.jpg", "b/c/0.png", "other"]
    assert results(tmp_path / "out") == names
    got = segjax("predict", cnn, *[tmp_path / "in/a/1.png"] * 2, "--out", tmp_path)
    assert got.code == 0
    assert "1 label maps" in got.out
    # Results in folders must not lie beside images either.
    got = segjax("predict", cnn, tmp_path / "in", "--out", tmp_path / "in")
    expect_one_error_line(got, "another folder")


def test_a_result_that_would_replace_anothers_picture(segjax, cnn, tmp_path):
    images = save_images(tmp_path / "images", [(9, 12, 3)] * 2)
    (images / "0.png").rename(images / "1_overlay.png")
    got = segjax("predict", cnn, images, "--out", tmp_path / "out")
    assert got.code == 0, got.err
    assert results(tmp_path / "out") == ["1.png", "1_overlay.png"]


def test_results_are_written_atomically(segjax, cnn, tmp_path, monkeypatch):
    images, out = save_images(tmp_path / "images", [(9, 12, 3)]), tmp_path / "out"
    assert segjax("predict", cnn, images, "--out", out).code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    save = Image.Image.save

    def half(error):
        def save_half(picture, file, *args, **options):
            save(picture, file, *args, **options)
            os.truncate(file, 20)
            raise error

        return save_half

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error, code in ((full, 2), (KeyboardInterrupt(), 130)):
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "save", half(error))
            got = segjax("predict", cnn, images, "--out", out)
        assert got.code == code
        assert len(got.err.strip().splitlines()) == 1, got.err
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    # The message names the file, which the system's error does not.
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", half(full))
        got = segjax("predict", cnn, images, "--out", out)
    expect_one_error_line(got, out / "0.png", "No space left")


def test_images_larger_than_max_pixels_are_errors(segjax, cnn, tmp_path):
    huge = tmp_path / "huge.png"
    Image.new("1", (13_000, 13_000)).save(huge)
    assert huge.stat().st_size < 100_000
    got = segjax("predict", cnn, huge, "--out", tmp_path / "out")
    expect_one_error_line(got, huge, "13000x13000", "--max-pixels", code=1)
    images = save_images(tmp_path / "images", [(9, 12, 3)])
    flags = ("--out", tmp_path / "out", "--max-pixels")
    got = segjax("predict", cnn, images, *flags, 107)
    expect_one_error_line(got, "at most 107 pixels", code=1)
    assert segjax("predict", cnn, images, *flags, 108).code == 0
    got = segjax("predict", cnn, images, *flags, 0)
    expect_one_error_line(got, "--max-pixels must be at least 1")


def test_images_with_nan_are_errors(segjax, tmp_path):
    run = write_run(
        tmp_path / "run", models.SimpleCNN(num_classes=3), channels=1, dtype="float32"
    )
    pixels = np.zeros((9, 9), np.float32)
    pixels[4, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    got = segjax("predict", run, tmp_path / "a.tif", "--out", tmp_path / "out")
    expect_one_error_line(got, tmp_path / "a.tif", "NaN or infinity", code=1)


def test_a_network_that_does_not_take_its_variables(segjax, cnn, tmp_path):
    images = save_images(tmp_path / "images", [(9, 12, 3)])
    described = json.loads((cnn / "model.json").read_text())
    described["module"]["attributes"]["width"] = 10**9
    (cnn / "model.json").write_text(json.dumps(described))
    got = segjax("predict", cnn, images, "--out", tmp_path / "out")
    expect_one_error_line(got, cnn / "model.json", "does not accept its variables")
