"""`segjax predict` over folders of all kinds of files: done, named, resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pycocotools.coco
import pytest
import tifffile
from PIL import Image

import segjax as package
from segjax import inference, model_file, models
from segjax.forward import Forward
from tests.cli.conftest import expect_one_error_line
from tests.cli.test_predict import write_run


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return write_run(folder, models.SimpleCNN(num_classes=3))


def pixels_of(*size, dtype=np.uint8, seed=0):
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, size).astype(dtype)


def mixed_folder(folder, good):
    """The kinds of files of a real folder; two of them cannot be read."""
    folder.mkdir()
    for i in range(good):
        pixels = pixels_of(20 + i % 3, 31, 3, seed=i)
        Image.fromarray(pixels).save(folder / f"good{i:03d}.png")
    content = (folder / "good000.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("no picture")
    tifffile.imwrite(folder / "deep.tif", pixels_of(18, 22, dtype=np.uint16))
    stack = pixels_of(3, 18, 22, 3)
    tifffile.imwrite(folder / "pages.tif", stack, photometric="rgb")
    Image.fromarray(pixels_of(18, 22)).save(folder / "gray.jpg")
    Image.fromarray(pixels_of(18, 22, 4)).save(folder / "rgba.png")
    Image.fromarray(pixels_of(18, 22, 4), "CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels_of(18, 22, 3)).save(folder / "turned.jpg", exif=exif)
    return folder


def content_of(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def sizes_of(out):
    sizes = {}
    for path in out.glob("*_overlay.png"):
        name = path.name.removesuffix("_overlay.png")
        with Image.open(out / f"{name}.png") as image:
            sizes[name] = image.size
    return sizes


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_every_readable_file_is_done(segjax, cnn, tmp_path):
    folder, out = mixed_folder(tmp_path / "in", 200), tmp_path / "out"
    got = segjax("predict", cnn, folder, "--out", out)
    assert got.code == 1
    errors = [x for x in got.err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 2
    assert str(folder / "text.png") in errors[0]
    assert str(folder / "truncated.png") in errors[1]
    (note,) = (x for x in got.err.splitlines() if x.startswith("note: "))
    assert "deep.tif is uint16, divided by 257" in note
    assert sizes_of(out) == {
        **{f"good{i:03d}": (31, 20 + i % 3) for i in range(200)},
        **{f"pages_page{i}": (22, 18) for i in (1, 2, 3)},
        **dict.fromkeys(("deep", "gray", "rgba", "cmyk"), (22, 18)),
        "turned": (18, 22),
    }
    assert "208 label maps" in got.out


SLOWED = """
import sys, time
import numpy as np
from segjax import cli
from segjax.cli import predict_files

write = predict_files.write

def slow(*args):
    time.sleep(0.03)
    write(*args)

predict_files.write = slow
cli.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_killed_and_resumed_equals_one_run(segjax, cnn, tmp_path):
    """Byte for byte, with all kinds of results."""
    folder = mixed_folder(tmp_path / "in", 200)
    flags = ("--objects", "--probabilities", "--uncertainty")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert segjax("predict", cnn, folder, "--out", whole, *flags).code == 1
    args = ["predict", cnn, folder, "--out", parts, *flags]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWED, *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 400
    while len(list(parts.glob("*_uncertainty.npz"))) < 60:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = content_of(parts)
    assert 60 <= sum(name.endswith("_uncertainty.npz") for name in left) < 208
    (parts / ".good199.png.tmp").write_bytes(b"half")
    kept = {n: (parts / n).stat().st_mtime_ns for n in left if n.endswith("y.npz")}
    got = segjax(*args, "--resume")
    assert got.code == 1
    assert len([x for x in got.err.splitlines() if x.startswith("error: ")]) == 2
    after = content_of(parts)
    assert after.keys() == content_of(whole).keys()
    assert after == content_of(whole)
    for name, before in kept.items():
        assert (parts / name).stat().st_mtime_ns == before, name
    got = segjax(*args[:-1], "--resume", "--min-area", 5)
    expect_one_error_line(got, "other settings", "min_area, uncertainty")


def test_tiles_turns_and_maps(segjax, cnn, tmp_path):
    image = pixels_of(50, 40, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    flags = ("--tile", 32, "--overlap", 0.5, "--tta", "--probabilities")
    got = segjax(
        *("predict", cnn, tmp_path / "a.png", "--out", tmp_path / "out", *flags),
        *("--uncertainty", "--ensemble", cnn),
    )
    assert got.code == 0, got.err
    predict = inference.sliding_window(
        inference.tta(package.load(cnn).probabilities), tile=32, overlap=0.5
    )
    (want,) = predict(image[None])
    with np.load(tmp_path / "out/a_probabilities.npz") as found:
        np.testing.assert_allclose(found["probabilities"], want, atol=2e-3)
        assert found["probabilities"].dtype == np.float16
    with np.load(tmp_path / "out/a_uncertainty.npz") as found:
        entropy = inference.transforms.pixel_entropy(want)[..., 0]
        np.testing.assert_allclose(found["entropy"], entropy, atol=3e-3)
        # Both members are the same.
        np.testing.assert_allclose(found["disagreement"], 0, atol=1e-3)


def test_classes_and_small_regions(segjax, cnn, tmp_path):
    Image.fromarray(pixels_of(40, 40, 3)).save(tmp_path / "a.png")
    args = ("predict", cnn, tmp_path / "a.png", "--out", tmp_path / "out")
    want = package.load(cnn).predict(tmp_path / "a.png").labels
    assert segjax(*args, "--classes", "bar").code == 0
    label = np.asarray(Image.open(tmp_path / "out/a.png"))
    np.testing.assert_array_equal(label, np.where(want == 2, 2, 0))
    assert segjax(*args, "--min-area", 30, "--objects").code == 0
    label = np.asarray(Image.open(tmp_path / "out/a.png"))
    found = json.loads((tmp_path / "out/a.json").read_text())
    rows = found["annotations"]
    assert all(row["area"] >= 30 for row in rows)
    for k in (1, 2):
        areas = sum(row["area"] for row in rows if row["category_id"] == k)
        assert areas == np.count_nonzero(label == k) <= np.count_nonzero(want == k)
    assert set(np.unique(label[label != want])) <= {0}
    got = segjax(*args, "--classes", "sky")
    expect_one_error_line(got, "needs names of background, square, bar, got sky")


def test_stacks_arrays_and_archives(segjax, tmp_path):
    run = write_run(
        tmp_path / "run", models.SimpleCNN(num_classes=3), channels=2, dtype="float32"
    )
    arrays = np.random.default_rng(0).normal(size=(2, 9, 12, 2)).astype(np.float32)
    np.savez(tmp_path / "both.npz", one=arrays[0], two=arrays[1])
    np.save(tmp_path / "one.npy", arrays[0])
    tifffile.imwrite(
        tmp_path / "stack.tif",
        arrays,
        photometric="minisblack",
        planarconfig="contig",
    )
    out = tmp_path / "out"
    names = ("both.npz", "one.npy", "stack.tif")
    got = segjax("predict", run, *(tmp_path / n for n in names), "--out", out)
    assert got.code == 0, got.err
    first = np.asarray(Image.open(out / "one.png"))
    for name in ("both_one", "stack_page1"):
        np.testing.assert_array_equal(
            np.asarray(Image.open(out / f"{name}.png")), first
        )
    second = np.asarray(Image.open(out / "both_two.png"))
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "stack_page2.png")), second
    )


def test_a_large_tiff_in_windows(segjax, tmp_path):
    run = write_run(tmp_path / "run", models.SimpleCNN(num_classes=3), channels=1)
    image = pixels_of(300, 410)
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, image, tile=(64, 64), bigtiff=True)
    args = ("predict", run, path, "--out", tmp_path / "out", "--max-pixels", 100_000)
    expect_one_error_line(segjax(*args), path, "at most 100,000", code=1)
    got = segjax(*args, "--tile", 64)
    assert got.code == 0, got.err
    predict = inference.sliding_window(package.load(run).probabilities, tile=64)
    want = inference.labels(predict(image[None, ..., None])[0])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/large.tif"), want)
    got = segjax(*args, "--tile", 64, "--objects")
    expect_one_error_line(got, path, "--objects", code=1)


def test_other_bits_only_where_integers_are_scaled_by_their_range(segjax, tmp_path):
    from segjax import ops

    module = models.SimpleCNN(num_classes=3)
    image = np.zeros((1, 16, 16, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), image)
    facts = {
        "classes": ["a", "b", "c"],
        "image": {"channels": 3, "dtype": "uint8", "low": 0, "high": 255},
        "task": "semantic",
        "multiple": 16,
        "max_shapes": 2,
    }
    forward = Forward(module, ops.clip_window(0.0, 100.0))
    model_file.write(tmp_path / "run", forward, variables, facts)
    tifffile.imwrite(tmp_path / "a.tif", pixels_of(9, 9, dtype=np.uint16))
    got = segjax(
        "predict", tmp_path / "run", tmp_path / "a.tif", "--out", tmp_path / "o"
    )
    expect_one_error_line(got, "of dtype uint8", "uint16", code=1)


def test_objects_of_a_folder(segjax, cnn, tmp_path):
    for name in ("=1+1", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels_of(30, 40, 3)).save(tmp_path / f"in/{name}.png")
    out = tmp_path / "out"
    got = segjax(
        *("predict", cnn, tmp_path / "in", "--out", out, "--objects"),
        *("--min-area", 20),
    )
    assert got.code == 0, got.err
    dataset = pycocotools.coco.COCO(str(out / "objects.json"))
    assert len(dataset.imgs) == 2
    labels = np.asarray(Image.open(out / "b.png"))
    (image_id,) = (i for i, x in dataset.imgs.items() if x["file_name"] == "b.png")
    union = np.zeros(labels.shape, int)
    for row in dataset.imgToAnns[image_id]:
        union += dataset.annToMask(row) * row["category_id"]
    np.testing.assert_array_equal(union, labels)
    with open(out / "objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(dataset.anns)
    assert {row["image"] for row in rows} == {"'=1+1.png", "b.png"}
    assert [int(row["area"]) for row in rows] == [
        row["area"] for row in dataset.dataset["annotations"]
    ]
    features = json.loads((out / "b.geojson").read_text())["features"]
    assert len(features) == len(dataset.imgToAnns[image_id])


def test_help_needs_no_run(segjax):
    for args in (("predict", "--help"), ("predict", "-h")):
        got = segjax(*args)
        assert got.code == 0
        for flag in ("--tile", "--tta", "--ensemble", "--resume", "--min-area"):
            assert flag in got.out
