"""The subcommands, on a small run."""

import csv
import json
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import segjax as package
from segjax import __version__, data
from segjax.cli import pictures
from tests.scenes import examples


def test_train_fills_the_run_folder(run):
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["mean_iou"] > 0.5
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["flags"]["learning_rate"] == 3e-2
    assert manifest["flags"]["seed"] == 0
    samples = sorted(p.name for p in (run / "samples").iterdir())
    assert samples == ["00.png", "01.png"]
    with Image.open(run / "samples/00.png") as picture:
        assert picture.info["Title"] in {f"{i:02d}" for i in range(30)}
    report = (run / "report.html").read_text()
    assert "square" in report
    assert "http://" not in report.replace("http://www.w3.org", "")


def test_evaluate_repeats_the_metrics_of_the_run(segjax, run):
    got = segjax("evaluate", run)
    assert got.code == 0, got.err
    metrics = json.loads((run / "evaluation-test-best.json").read_text())
    final = json.loads((run / "result.json").read_text())
    assert metrics["metrics"] == final["metrics"]
    assert metrics["step"] == final["best_step"]
    assert f"{final['metrics']['mean_iou']:.4f}" in got.out


def test_evaluate_lists_images_worst_first(segjax, run, source, tmp_path):
    """By hand: the IoU of each image, from its label map as `predict` writes it."""
    assert segjax("evaluate", run, "--split", "train").code == 0
    with (run / "evaluation-train-best.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = json.loads((run / "evaluation-train-best.json").read_text())
    assert len(rows) == whole["examples"] > 8
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    scores = [float(row["mean_iou"]) for row in rows]
    assert scores == sorted(scores)
    losses = [float(row["loss"]) for row in rows]
    assert np.mean(losses) == pytest.approx(whole["metrics"]["loss"], rel=1e-5)
    model = package.load(run)
    for row in rows[:2] + rows[-1:]:
        found = model.predict(source / f"images/{row['name']}.png").labels
        truth = np.asarray(Image.open(source / f"masks/{row['name']}.png"))
        for k, name in enumerate(("background", "square", "bar")):
            union = np.sum(((found == k) | (truth == k)) & (truth != 255))
            shared = np.sum((found == k) & (truth == k))
            want = "" if union == 0 else pytest.approx(shared / union, abs=1e-6)
            got = row[f"iou/{name}"]
            assert (float(got) if got else "") == want
    with Image.open(run / "worst/00.png") as picture:
        assert picture.text["Title"] == rows[0]["name"]
        assert picture.text["Description"].startswith("train, mean IoU ")
    assert sorted(p.name for p in (run / "worst").iterdir()) == ["00.png", "01.png"]
    report = (run / "report.html").read_text()
    assert "Worst images" in report
    assert f"<strong>{rows[0]['name']}</strong>" in report


def test_evaluate_gives_the_model_the_inputs_of_the_experiment(
    segjax, script, source, tmp_path
):
    """Mask R-CNN needs the unpadded sizes besides the images."""
    plain = script.read_text()
    changed = plain.replace(
        "optimizer=",
        'model_inputs=lambda batch: {"image": 1 - batch["image"]}, optimizer=',
    )
    assert changed != plain
    path, folder = tmp_path / "inverted.py", tmp_path / "run"
    path.write_text(changed)
    got = segjax("train", path, "--source", source, "--steps", 10, "--run", folder)
    assert got.code == 0, got.err
    assert segjax("evaluate", folder).code == 0
    metrics = json.loads((folder / "evaluation-test-best.json").read_text())
    final = json.loads((folder / "result.json").read_text())
    assert metrics["metrics"] == final["metrics"]


def test_evaluate_another_split_and_checkpoint(segjax, run, monkeypatch):
    args = ("evaluate", run, "--split", "validation", "--checkpoint", "last")
    assert segjax(*args).code == 0
    assert (run / "evaluation-validation-last.json").exists()
    whole = [path.read_bytes() for path in sorted((run / "worst").iterdir())]
    # Pictures of large images are predicted in tiles.
    monkeypatch.setattr(pictures, "_MAX_WHOLE", 0)
    monkeypatch.setattr(pictures, "_TILE", 32)
    assert segjax(*args).code == 0
    assert whole == [path.read_bytes() for path in sorted((run / "worst").iterdir())]


def test_predict_images_folders_and_globs(segjax, run, tmp_path):
    scenes = examples(4, seed=11)
    for i, scene in enumerate(scenes):
        Image.fromarray(scene["image"]).save(tmp_path / f"scene{i}.png")
    odd = np.random.default_rng(0).integers(0, 255, (97, 61, 3)).astype(np.uint8)
    (tmp_path / "more").mkdir()
    Image.fromarray(odd).save(tmp_path / "more/odd.jpg")
    out = tmp_path / "out"
    got = segjax(
        "predict", run, tmp_path / "scene0.png", tmp_path / "scene[1-3].png",
        tmp_path / "more", "--out", out,
    )  # fmt: skip
    assert got.code == 0, got.err
    assert len(list(out.glob("*_overlay.png"))) == 5
    label = np.asarray(Image.open(out / "odd.png"))
    assert label.shape == (97, 61)
    right = [
        np.mean(np.asarray(Image.open(out / f"scene{i}.png")) == scene["label"])
        for i, scene in enumerate(scenes)
    ]
    assert np.mean(right) > 0.8


@pytest.mark.slow
def test_python_script_equals_segjax_train(script, source, run, tmp_path, data_dir):
    done = subprocess.run(
        [sys.executable, script, "--source", source, "--run", tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    mine = json.loads((tmp_path / "run/result.json").read_text())
    theirs = json.loads((run / "result.json").read_text())
    # Another number of devices than here: equal to rounding.
    assert mine["metrics"]["mean_iou"] == pytest.approx(
        theirs["metrics"]["mean_iou"], abs=0.05
    )


def test_resume_a_finished_run_with_more_steps(segjax, script, source, tmp_path):
    run = tmp_path / "run"
    flags = ["--source", source, "--run", run]
    assert segjax("train", script, *flags, "--steps", "6").code == 0
    got = segjax("train", script, *flags, "--steps", "12", "--resume")
    assert got.code == 0, got.err
    assert "note: --steps 12; the run was trained with 6." in got.err
    assert json.loads((run / "result.json").read_text())["steps"] == 12


def test_summary_trains_nothing(segjax, script, source, tmp_path):
    run = tmp_path / "run"
    got = segjax("train", script, "--source", source, "--run", run, "--summary")
    assert got.code == 0, got.err
    assert "FLOPs" in got.out
    assert not run.exists()


def test_data_list_and_prepare(segjax, source):
    got = segjax("data", "list")
    assert got.code == 0
    for name in ("digits", "dsb2018", "camvid", "isbi2012", "drive", "folder"):
        assert name in got.out
    got = segjax("data", "prepare", "folder", "--source", source)
    assert got.code == 0, got.err
    assert data.folder(source).fingerprint in got.out.replace("\n", "")


HELP = {
    "train": "EXPERIMENT.py",
    "seeds": "EXPERIMENT.py",
    "sweep": "--search",
    "evaluate": "--split",
    "verify": "--first",
    "inspect": "--top",
    "predict": "INPUT: images (PNG",
    "export": "--out",
    "serve": "--port",
    "calibrate": "--checkpoint",
    "data": "data prepare NAME",
    "import": "--model",
}
"""What the help of each subcommand says."""


@pytest.mark.parametrize("subcommand", HELP)
def test_each_subcommand_helps_alone(segjax, subcommand):
    got = segjax(subcommand, "--help")
    assert (got.code, got.err) == (0, "")
    assert got.out.startswith(f"usage: segjax {subcommand} ")
    assert HELP[subcommand] in got.out
    assert "Options options" not in got.out  # Names of our classes.


def test_a_runs_help_begins_with_the_flags_of_the_subcommand(segjax, run):
    text = segjax("evaluate", run, "--help").out
    assert 0 < text.index("--split") < text.index("--learning-rate")
    assert "--learning-rate" not in segjax("predict", run, "--help").out


def test_help_and_version(segjax, script):
    for args in (["--help"], ["--version"], ["train", "--help"], ["data", "--help"]):
        assert segjax(*args).code == 0
    got = segjax("--version")
    version = f"segjax {__version__} (jax {jax.__version__}, Python"
    assert got.out == f"{version} {platform.python_version()})\n"
    got = segjax("train", script, "--help")
    assert got.code == 0
    assert "--learning-rate" in got.out
    assert "--resume" in got.out


def test_python_m_segjax_is_the_command():
    command = [sys.executable, "-m", "segjax", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"segjax {__version__} (jax ")


COMPLETED = {
    "segjax see": "seeds",
    "segjax train exp.py --learning-rate 1 --on-nonf": "--on-nonfinite",
    "segjax inspect runs/a --by g": "gradient",
    "segjax verify runs/a --tr": "--trust",
    "segjax predict runs/a x.png --max": "--max-pixels",
    "segjax import a.pth --mod": "--model",
    "segjax seeds nothing_that_is_a_": "",  # bash then completes file names.
}


def test_bash_completes_subcommands_and_flags(segjax, tmp_path):
    got = segjax("--tyro-print-completion", "bash")
    assert got.code == 0, got.err
    (tmp_path / "completion").write_text(got.out)
    lines = [f"source {tmp_path}/completion; complete -p segjax"]
    for typed in COMPLETED:
        lines.append(f"COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))")
        lines.append('COMPREPLY=(); _segjax; echo "${#COMPREPLY[@]} ${COMPREPLY[*]}"')
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    registered, *found = done.stdout.splitlines()
    assert registered == "complete -o default -F _segjax segjax"
    assert found[:-1] == [f"1 {name}" for name in list(COMPLETED.values())[:-1]]
    assert found[-1] == "0 "


def test_completion_for_an_unknown_shell(segjax):
    got = segjax("--tyro-print-completion", "powershell")
    assert got.code == 2
    assert got.err.startswith("error: --tyro-print-completion needs one of bash")
