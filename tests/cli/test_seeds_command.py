"""`segjax seeds`: run folders, statistics and messages."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.stats
from PIL import Image
from rich.console import Console

from segjax.cli import seeds_table
from tests.cli.conftest import expect_one_error_line

SEEDS = (5, 0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seeds") / "run"


@pytest.fixture
def seeds(segjax, script, source, folder):
    """Calls the subcommand on one folder, which the first call trains."""

    def call(*args):
        flags = ["--source", source, "--run", folder, "--steps", "12"]
        return segjax("seeds", script, *flags, "--seeds", *SEEDS, *args)

    return call


@pytest.fixture
def trained(seeds, folder):
    """The output of the subcommand; the folder is trained once."""
    printed = folder.parent / "printed.txt"
    if not printed.exists():
        got = seeds()
        assert got.code == 0, got.err
        printed.write_text(got.out)
    return printed.read_text()


def results(folder):
    return [json.loads((folder / f"seed-{s}/result.json").read_text()) for s in SEEDS]


def test_each_folder_is_a_run(segjax, trained, folder):
    for seed, result in zip(SEEDS, results(folder), strict=True):
        one = folder / f"seed-{seed}"
        manifest = json.loads((one / "run.json").read_text())
        assert manifest["flags"]["seed"] == seed
        assert manifest["flags"]["steps"] == 12
        assert (one / "report.html").exists()
        assert list((one / "samples").glob("*.png"))
        got = segjax("evaluate", one)
        assert got.code == 0, got.err
        again = json.loads((one / "evaluation-test-best.json").read_text())
        assert again["metrics"] == result["metrics"]


def test_prediction_from_one_seed(segjax, trained, folder, source, tmp_path):
    picture = source / "images/00.png"
    got = segjax("predict", folder / "seed-2", picture, "--out", tmp_path / "out")
    assert got.code == 0, got.err
    assert (tmp_path / "out/00.png").exists()


def test_statistics_equal_numpys(trained, folder):
    written = json.loads((folder / "seeds.json").read_text())
    assert written["seeds"] == list(SEEDS)
    found = results(folder)
    assert written["metrics"].keys() == found[0]["metrics"].keys()
    for name, one in written["metrics"].items():
        values = [result["metrics"][name] for result in found]
        assert one["values"] == values
        assert one["mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert one["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
        half = scipy.stats.t.ppf(0.975, 2) * one["std"] / math.sqrt(3)
        assert one["low"] == pytest.approx(one["mean"] - half, rel=1e-9)
        assert one["high"] == pytest.approx(one["mean"] + half, rel=1e-9)
        assert one["n"] == 3
    assert written["interval"] == "95 % of the mean over n seeds, Student's t"
    values = written["metrics"]["mean_iou"]["values"]
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in trained
    for seed, value in zip(SEEDS, values, strict=True):
        (line,) = [x for x in trained.splitlines() if x.startswith(f"│ {seed}  ")]
        assert f"{value:.4f}" in line


def test_picture(trained, folder):
    with Image.open(folder / "seeds.png") as picture:
        assert picture.width > 1000


def test_resume_with_more_steps(seeds, trained, folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    got = seeds("--resume", "--steps", "15", "--run", run)
    assert got.code == 0, got.err
    assert "Continuing from the checkpoints of step 12." in got.out
    assert {r["steps"] for r in results(run)} == {15}
    assert json.loads((run / "seeds.json").read_text())["steps"] == 15


def test_nan_of_a_seed_is_excluded():
    runs = [
        {"metrics": {"iou/cat": x}, "split": "test", "seed": i}
        for i, x in enumerate([0.5, math.nan, 0.7])
    ]
    one = seeds_table.statistics(runs)["iou/cat"]
    assert one["mean"] == pytest.approx(0.6)
    assert one["std"] == pytest.approx(np.std([0.5, 0.7], ddof=1))


def test_one_seed_has_no_standard_deviation():
    result = {"metrics": {"mean_iou": 0.5}, "split": "test", "seed": 1, "best_step": 3}
    found = seeds_table.statistics([result])
    assert found["mean_iou"]["mean"] == 0.5
    assert math.isnan(found["mean_iou"]["std"])
    console = Console(width=100, record=True)
    console.print(seeds_table.over_seeds(found, split="test"))
    console.print(seeds_table.of_each_seed([result], monitor="mean_iou"))
    assert "0.5000 ± nan" in console.export_text()


@pytest.mark.parametrize("flag", [["--seed", "3"], ["--seed=3"]])
def test_the_flag_of_one_seed_is_refused(seeds, trained, flag):
    expect_one_error_line(seeds(*flag), "--seeds", "--seed")


def test_words(segjax, script, seeds, trained, folder, tmp_path):
    expect_one_error_line(segjax("seeds"), "experiment script", "--seeds 0 1 2 3")
    expect_one_error_line(segjax("seeds", "nowhere.py", "--seeds", "0"), "nowhere.py")
    expect_one_error_line(seeds(), folder, "not empty", "--resume")
    expect_one_error_line(seeds("--seeds", "1", "1"), "once")
    for args in (["--help"], [script, "--help"]):
        got = segjax("seeds", *args)
        assert got.code == 0
        assert "--seeds" in got.out
        assert "--seed " not in got.out


def test_resume_needs_a_run(segjax, script, source):
    got = segjax("seeds", script, "--source", source, "--seeds", "0", "--resume")
    expect_one_error_line(got, "--run")


def test_an_experiment_without_seed(segjax, script, source, tmp_path):
    text = script.read_text()
    without = tmp_path / "without_seed.py"
    without.write_text(
        text.replace("    seed: int = 0,\n", "").replace("seed=seed,", "")
    )
    flags = ["--source", source, "--seeds", "0", "1", "--run", tmp_path / "run"]
    expect_one_error_line(segjax("seeds", without, *flags), "`seed`", without)
    ignores = tmp_path / "ignores_seed.py"
    ignores.write_text(text.replace("seed=seed", "seed=0"))
    expect_one_error_line(segjax("seeds", ignores, *flags), "TrainConfig(seed=seed)")


def test_divergence_ends_with_code_3(segjax, script, source, tmp_path):
    run = tmp_path / "run"
    flags = ["--source", source, "--run", run, "--steps", "400", "--seeds", "1", "2"]
    got = segjax("seeds", script, *flags, "--learning-rate", "1e38")
    assert got.code == 3, got.err
    last = got.err.strip().splitlines()[-1]
    assert last.startswith("error: Seed ")
    assert segjax("evaluate", run / "seed-2", "--checkpoint", "last").code == 0
