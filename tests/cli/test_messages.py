"""Bad input: one line, exit code 2, no traceback, no unfinished files."""

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import expect_one_error_line, write_scenes


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes", 6)


@pytest.fixture
def train(segjax, script, scenes, tmp_path):
    def call(*args):
        run = tmp_path / "run"
        got = segjax("train", script, "--source", scenes, "--run", run, *args)
        assert not run.exists()
        return got

    return call


def test_an_unknown_flag_suggests_the_nearest(train):
    got = train("--learningrate", "1")
    assert got.code == 2
    assert "Traceback" not in got.err + got.out
    assert "--learning-rate" in got.err


def test_missing_source(segjax, script):
    got = segjax("train", script)
    assert got.code == 2
    assert "--source" in got.err
    assert "Traceback" not in got.err


def test_learning_rate_of_abc(train):
    got = train("--learning-rate", "abc")
    assert got.code == 2
    assert "abc" in got.err
    assert "Traceback" not in got.err


def test_corrupt_png(train, scenes):
    path = scenes / "images/03.png"
    path.write_bytes(path.read_bytes()[:60])
    expect_one_error_line(train(), path)


def test_mask_of_another_size(train, scenes):
    path = scenes / "masks/02.png"
    Image.fromarray(np.zeros((9, 16), np.uint8)).save(path)
    expect_one_error_line(train(), path, "16x16", "16x9")


def test_class_id_out_of_range(train, scenes):
    path = scenes / "masks/02.png"
    Image.fromarray(np.full((16, 16), 3, np.uint8)).save(path)
    expect_one_error_line(train(), path, "3")


def test_image_without_mask(train, scenes):
    (scenes / "masks/05.png").unlink()
    expect_one_error_line(train(), scenes / "images/05.png")


def test_empty_folder(segjax, script, tmp_path):
    (tmp_path / "empty").mkdir()
    got = segjax("train", script, "--source", tmp_path / "empty")
    expect_one_error_line(got, tmp_path / "empty", "images")


def test_source_that_does_not_exist(segjax, script, tmp_path):
    got = segjax("train", script, "--source", tmp_path / "nowhere")
    expect_one_error_line(got, tmp_path / "nowhere")


def test_run_that_exists(segjax, script, source, run):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    got = segjax("train", script, "--source", source, "--run", run)
    expect_one_error_line(got, run, "--resume")
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_checkpoint_of_another_model(segjax, script, source, run):
    got = segjax(
        "train", script, "--source", source, "--run", run, "--resume", "--width", "8"
    )
    assert got.code == 2
    last = got.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "another model" in last
    assert "params/" in last


def test_diverging_training(segjax, script, source, tmp_path):
    run = tmp_path / "run"
    flags = ["--source", source, "--run", run, "--steps", "400"]
    got = segjax("train", script, *flags, "--learning-rate", "1e38")
    assert got.code == 3, got.err
    last = got.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "at step" in last
    assert segjax("evaluate", run, "--checkpoint", "last").code == 0
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian"], ["trian", "train"]),
        (["train"], ["experiment script"]),
        (["train", "nowhere.py"], ["nowhere.py"]),
        (["evaluate"], ["run folder"]),
        (["evaluate", "nowhere"], ["nowhere", "run.json"]),
        (["predict", "nowhere"], ["images"]),
        (["data"], ["list"]),
        (["data", "prepare", "cityscapes"], ["digits", "cityscapes"]),
        (["data", "prepare", "camvid"], ["--source"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_words(segjax, args, words):
    expect_one_error_line(segjax(*args), *words)


def test_unknown_split(segjax, run):
    expect_one_error_line(
        segjax("evaluate", run, "--split", "tset"), "tset", "validation"
    )


def test_predict_messages(segjax, run, tmp_path):
    got = segjax("predict", run, tmp_path / "none*.png", "--out", tmp_path / "out")
    expect_one_error_line(got, "none*.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    got = segjax("predict", run, bad, "--out", tmp_path / "out")
    expect_one_error_line(got, bad, code=1)


def test_script_without_experiment(segjax, tmp_path):
    path = tmp_path / "empty_script.py"
    path.write_text("x = 1\n")
    expect_one_error_line(segjax("train", path), path, "experiment")
