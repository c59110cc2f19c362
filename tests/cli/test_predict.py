"""`segjax predict`: files in, pictures out; nothing of the run is executed unasked."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import segjax as package
from segjax import model_file, models
from segjax.forward import Forward
from tests.cli.conftest import expect_one_error_line

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


def write_run(folder, module, *, channels=3, dtype="uint8"):
    image = np.zeros((1, 16, 16, channels), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), image)
    facts = {
        "classes": ["background", "square", "bar"],
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
    folder.mkdir()
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
    names = [f"{i}{end}.png" for i in range(3) for end in ("", "_overlay")]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    for i in range(3):
        prediction = package.load(cnn).predict(images / f"{i}.png")
        label = np.asarray(Image.open(out / f"{i}.png"))
        np.testing.assert_array_equal(label, prediction.labels)
        overlay = np.asarray(Image.open(out / f"{i}_overlay.png"))
        np.testing.assert_array_equal(overlay, prediction.overlay())
    assert segjax("predict", cnn, images, "--out", out).code == 0
    assert len(list(out.iterdir())) == 8


def test_code_of_a_user_s_own_runs_only_where_trusted(segjax, tmp_path):
    run = write_run(tmp_path / "run", Mine())
    (run / "experiment.py").write_text(SCRIPT)
    (run / "run.json").write_text(json.dumps({"flags": {}, "script": None}))
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
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    expect_one_error_line(segjax("predict", cnn, bad, "--out", out), bad)
    deep = save_images(tmp_path / "deep", [(16, 16)], np.uint16) / "0.png"
    got = segjax("predict", cnn, deep, "--out", out)
    expect_one_error_line(got, deep, "[H, W, 3] of dtype uint8", "uint16")
    got = segjax("predict", tmp_path, deep, "--out", out)
    expect_one_error_line(got, tmp_path, "model.json is missing")
    twin = save_images(tmp_path / "twin", [(16, 16, 3)])
    got = segjax("predict", cnn, deep, twin, "--out", out)
    expect_one_error_line(got, "would both be written as 0.png")
    (cnn / "model.json").write_text("{")
    got = segjax("predict", cnn, twin, "--out", out)
    expect_one_error_line(got, cnn / "model.json", "damaged")
