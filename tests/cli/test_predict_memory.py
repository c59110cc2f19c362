"""`segjax predict` by memory: images of one size in batches, large ones in tiles."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import segjax as package
from segjax import inference, models
from segjax.cli import predict_memory
from tests.cli.conftest import expect_one_error_line
from tests.cli.test_predict import write_run


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return write_run(folder, models.SimpleCNN(num_classes=3))


def save(folder, sizes):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(sizes):
        pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def content_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def batches(monkeypatch):
    """Batches of four, as on a GPU; the rows of each call of the network."""
    calls, run = [], inference.Predictor._run

    def counted(self, images, size, *, rows):
        calls.append(rows)
        return run(self, images, size, rows=rows)

    monkeypatch.setattr(inference.Predictor, "_run", counted)
    monkeypatch.setattr(predict_memory.windows, "default_batch_size", lambda: 4)
    return calls


def test_images_of_one_size_are_batched(segjax, cnn, tmp_path, batches):
    """The files are those of images predicted one at a time, byte for byte."""
    images = save(tmp_path / "in", [(20, 30)] * 6 + [(30, 20)] * 2 + [(9, 9)])
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:-40])
    flags = ("--probabilities", "--uncertainty", "--objects")
    got = segjax("predict", cnn, images, "--out", tmp_path / "out", *flags)
    expect_one_error_line(got, images / "2.png", "is broken", code=1)
    # The second batch of the first size is completed with copies.
    assert sorted(batches) == [1, 2, 4, 4]
    alone = []
    for i in (0, 1, 3, 4, 5, 6, 7, 8):
        out = tmp_path / "alone" / str(i)
        path = images / f"{i}.png"
        assert segjax("predict", cnn, path, "--out", out, *flags).code == 0
        alone.append(content_of(out))
    assert set(batches[4:]) == {1}
    together = content_of(tmp_path / "out")
    for files in alone:
        for name, content in files.items():
            # Tables are of all images, and objects have the number of their image.
            if name.endswith((".png", ".npz")):
                assert together[name] == content, name


def test_a_batch_that_does_not_fit_is_predicted_one_by_one(
    segjax, cnn, tmp_path, batches, monkeypatch
):
    images = save(tmp_path / "in", [(20, 30)] * 4)
    run = inference.Predictor._run

    def small(self, images, size, *, rows):
        if rows > 1:
            raise inference.NoMemoryError("too large")
        return run(self, images, size, rows=rows)

    monkeypatch.setattr(inference.Predictor, "_run", small)
    got = segjax("predict", cnn, images, "--out", tmp_path / "out")
    assert (got.code, batches) == (0, [1] * 4), got.err


def test_batches_are_bounded_by_pixels():
    sizes = [(2048, 1024)] * 9 + [(64, 64)] * 9 + [(4000, 4000)] * 2 + [(8, 8)]
    want = {(2048, 1024): 2, (64, 64): 8, (4000, 4000): 1, (8, 8): 1}
    assert predict_memory.rows_by_size(sizes, most=8) == want


def test_an_image_that_needs_too_much_memory_is_tiled(
    segjax, cnn, tmp_path, monkeypatch
):
    monkeypatch.setattr(predict_memory, "SIDE", 32)
    need = package.load(cnn).temporary_bytes(32)
    assert need > 32 * 32 * 3
    # Enough for two tiles, and for a whole image of as many pixels.
    monkeypatch.setattr(predict_memory, "_CPU_BYTES", 2 * need)
    images = save(tmp_path / "in", [(30, 30), (45, 45), (50, 70)])
    out = tmp_path / "out"
    got = segjax("predict", cnn, images, "--out", out)
    assert got.code == 0
    (note,) = got.err.strip().splitlines()
    assert note.startswith(f"note: {images / '2.png'} has 0.0 megapixels: predicted")
    assert "in tiles of 32 pixels" in note
    model = package.load(cnn)
    tiled = inference.sliding_window(model.probabilities, tile=32)
    for name in "012":
        image = np.asarray(Image.open(images / f"{name}.png"))
        predict = tiled if name == "2" else model.probabilities
        want = inference.labels(predict(image[None])[0])
        got = np.asarray(Image.open(out / f"{name}.png"))
        np.testing.assert_array_equal(got, want)
    got = segjax("predict", cnn, images, "--out", tmp_path / "whole", "--tile", 0)
    assert (got.code, got.err) == (0, "")
    image = np.asarray(Image.open(images / "2.png"))
    want = inference.labels(model.probabilities(image[None])[0])
    got = np.asarray(Image.open(tmp_path / "whole/2.png"))
    np.testing.assert_array_equal(got, want)


PREDICT = """
import pathlib, re, sys
from segjax import cli
try:
    cli.main(sys.argv[1:])
finally:
    # Not ru_maxrss, which has the memory of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


@pytest.mark.slow
def test_a_photograph_of_20_megapixels_takes_less_than_3_gb(tmp_path):
    """With a U-Net, which takes 5.8 GB for the whole image."""
    run = write_run(
        tmp_path / "run", models.UNet(num_classes=3, widths=(16, 32, 64, 128))
    )
    noise = np.random.default_rng(0).integers(0, 256, (114, 171, 3)).astype(np.uint8)
    photo = Image.fromarray(noise).resize((5472, 3648), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.jpg")
    args = ["predict", run, tmp_path / "photo.jpg", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *map(str, args)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "20.0 megapixels: predicted in tiles of 1024 pixels" in done.stderr
    assert int(done.stdout.splitlines()[-1]) < 3_000_000  # Kilobytes.
    with Image.open(tmp_path / "out/photo.png") as label:
        assert label.size == photo.size
