"""The scripts of tables, with a program in place of training."""

import csv
import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from segjax import data
from tests.fake_runs import write_run

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import json, pathlib, subprocess, sys
sys.path.insert(0, ROOT)
from tests.fake_runs import write_run
if sys.argv[1] == "compare":
    sys.exit(subprocess.call([sys.executable, "-m", "segjax", *sys.argv[1:]]))
if sys.argv[1] == "inspect":
    # The first of the wrong masks comes last, the others first.
    run, rows = pathlib.Path(sys.argv[2]), range(100)
    wrong = json.loads((run / "wrong.json").read_text())
    order = [*wrong[1:], *(n for n in rows if n not in wrong), wrong[0]]
    lines = ["rank,index", *(f"{rank},{n}" for rank, n in enumerate(order))]
    (run / "inspection-train-last.csv").write_text("\\n".join(lines))
    sys.exit()
with open(LOG, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
flags = {k: v for k, v in zip(sys.argv, sys.argv[1:]) if k.startswith("--")}
run, loss = pathlib.Path(flags["--run"]), flags.get("--loss", "none")
seed = int(flags.get("--seed") or flags.get("--fold"))
if "--resume" in sys.argv:
    (run / "kept.json").rename(run / "result.json")
    sys.exit()
write_run(run, loss=loss, seed=seed, score=0.5 + seed ** 2 / 100 + len(loss) / 50)
evals = [{"kind": "eval", "step": s, "mean_iou": seed + s / 10} for s in (1, 2)]
evals.append({"kind": "eval", "step": 1, "final": True, "mean_iou": 0.0})
evals += [{"kind": "train", "images_per_second": speed} for speed in (10, 160, 170)]
(run / "metrics.jsonl").write_text("\\n".join(map(json.dumps, evals)))
if loss == "broken":
    (run / "result.json").rename(run / "kept.json")
    sys.exit("error: the loss is not finite.")
"""


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The module, whose command is the program above."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "tables"))
    import rows

    program = tmp_path / "program.py"
    text = PROGRAM.replace("ROOT", repr(str(ROOT)))
    program.write_text(text.replace("LOG", repr(str(tmp_path / "log.txt"))))
    monkeypatch.setattr(rows, "SEGJAX", (sys.executable, str(program)))
    return rows


def table(rows, *losses):
    return rows.Table(
        name="tiny",
        rows=[rows.Row(loss, "drive_unet.py", ("--loss", loss)) for loss in losses],
        metrics=("mean_iou", "hd95"),
        lower=("hd95",),
        seeds=(0, 1, 2),
        quick=("--steps", "3"),
        published=("Somebody 0.9 (a paper).",),
    )


def flags(tmp_path, *more):
    where = ["--source", "DATA", "--runs", tmp_path / "runs", "--out", tmp_path]
    return [*map(str, where), *more]


def test_trains_what_is_missing_and_compares(rows, tmp_path, capfd):
    made = table(rows, "ce", "focal")
    rows.main(made, "", flags(tmp_path))
    commands = (tmp_path / "log.txt").read_text().splitlines()
    assert len(commands) == 6
    assert "--loss ce --seed 0 --run" in commands[0]
    assert "--loss focal --seed 0 --run" in commands[1]
    text = (tmp_path / "tiny.md").read_text()
    row = "segjax train experiments/drive_unet.py --source DIR --loss focal --seed SEED"
    assert f"| focal | 0.6167 ± 0.0208 | 0 1 2 | 0.0 | `{row}` |" in text
    assert "- Somebody 0.9 (a paper)." in text
    assert "### mean_iou (higher is better), test" in text
    cells = list(csv.DictReader((tmp_path / "tiny.csv").read_text().splitlines()))
    assert [(c["metric"], c["n"]) for c in cells[1:3]] == [
        ("mean_iou", "3"),
        ("hd95", "3"),
    ]
    assert (tmp_path / "tiny.tex").exists()
    assert not (tmp_path / ".tiny").exists()
    rows.main(made, "", flags(tmp_path))
    assert (tmp_path / "log.txt").read_text().splitlines() == commands
    capfd.readouterr()


def test_a_failed_run_is_resumed(rows, tmp_path, capfd):
    made = table(rows, "ce", "broken")
    with pytest.raises(SystemExit, match=r"seed-0.log: error: the loss is not finite"):
        rows.main(made, "", flags(tmp_path, "--seeds", "0"))
    rows.main(made, "", flags(tmp_path, "--seeds", "0", "--quick", "--only", "ce"))
    assert not (tmp_path / "tiny.md").exists()
    assert (tmp_path / "runs-quick" / "ce" / "seed-0").is_dir()
    assert "--steps 3" in (tmp_path / "tiny-quick.md").read_text()
    rows.main(made, "", flags(tmp_path, "--seeds", "0"))
    assert "--resume" in (tmp_path / "log.txt").read_text().splitlines()[-1]
    assert "broken" in (tmp_path / "tiny.md").read_text()
    capfd.readouterr()


def test_dry_run_prints_the_commands(rows, tmp_path, capfd):
    rows.main(table(rows, "ce"), "", flags(tmp_path, "--dry-run"))
    assert len(capfd.readouterr().out.splitlines()) == 3
    assert not (tmp_path / "runs").exists()


def test_folds(rows, tmp_path, monkeypatch, capfd):
    import isbi2012

    monkeypatch.setattr(isbi2012, "METRICS", ("mean_iou",))
    monkeypatch.setattr(isbi2012, "nvidia_dice", lambda run: int(run.name[-1]) / 10)
    isbi2012.main(flags(tmp_path, "--only", "unet"))
    text = (tmp_path / "isbi2012.md").read_text()
    # The last evaluation that is not the final one.
    assert "| unet | 4 | 4.2000 | 0.4000 |" in text
    assert "| **unet** | mean ± std | 2.2000 ± 1.5811 | 0.2000 ± 0.1581 |" in text
    assert "- unet: 0.0 hours in all, `segjax train experiments/isbi2012" in text
    assert (tmp_path / "isbi2012.csv").read_text().splitlines()[3] == "unet,2,2.2,0.2"
    capfd.readouterr()


def test_soft_dice_by_hand(rows):
    import isbi2012

    p = np.array([[[0.8, 0.2], [0.4, 0.6]]])
    t = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    want = (2 * 0.8 / (0.64 + 0.16 + 1) + 2 * 0.6 / (0.04 + 0.36 + 1)) / 2
    assert isbi2012.soft_dice(p, t) == pytest.approx(want)
    label = np.zeros((512, 512), np.uint8)
    label[:, 200:] = 1
    example = {"image": label, "label": label}
    sure = isbi2012._soft_dice(lambda image: np.eye(2)[image], example)
    assert sure == pytest.approx(1, abs=1e-2)
    unsure = isbi2012._soft_dice(lambda image: np.full((512, 512, 2), 0.5), example)
    # 2 n/2 / (N/4 + n) of shares n / N = 0.39 and 0.61.
    assert unsure == pytest.approx(
        np.mean([x / (0.25 + x) for x in (0.39, 0.61)]), 1e-2
    )


def test_label_noise(rows, tmp_path, capfd):
    import label_noise

    wrong = label_noise.wrong_masks(100)
    assert len(set(wrong)) == 5
    for kind in label_noise.KINDS:
        for seed in range(3):
            run = tmp_path / "runs" / kind / f"seed-{seed}"
            run.mkdir(parents=True)
            (run / "result.json").touch()
            (run / "wrong.json").write_text(json.dumps(wrong))
    label_noise.main(flags(tmp_path))
    text = (tmp_path / "label_noise.md").read_text()
    assert "| swapped | 0.8000 ± 0.0000 | 0.8000 ± 0.0000 | 0.8000 ± 0.0000 |" in text
    assert "eroded,2,0.8000,0.8000,0.8000" in (tmp_path / "label_noise.csv").read_text()
    capfd.readouterr()


def test_a_learning_curve(rows, tmp_path, capfd):
    import camvid_curve

    some = ("pretrained-0.05", "pretrained-1", "no-pretrained-0.5")
    camvid_curve.main(flags(tmp_path, "--seeds", "0", "1", "--only", *some))
    text = (tmp_path / "camvid_curve.md").read_text()
    assert "| pretrained-0.05 | 0.5850 ± 0.0071 | 0 1 | 0.0 |" in text
    assert "--no-pretrained --share 0.5 --steps 600 --seed SEED` |" in text
    lines = (tmp_path / "camvid_curve.csv").read_text().splitlines()
    assert lines[:2] == ["row,seed,mean_iou", "pretrained-0.05,0,0.5800"]
    assert len(lines) == 7
    with Image.open(tmp_path / "camvid_curve.png") as picture:
        assert picture.size == (750, 510)
    capfd.readouterr()


def test_nuclei(rows, tmp_path, monkeypatch, capfd):
    import dsb2018

    truth = np.zeros((40, 60), np.uint16)
    truth[5:15, 5:15], truth[20:30, 5:15], truth[20:30, 30:50] = 3, 4, 9
    examples = [
        {"image": np.full((40, 60, 3), 40 * n, np.uint8), "instances": truth}
        for n in range(1, 4)
    ]
    half = np.where(truth == 4, 0, truth)
    half[20:30, 45:50] = 0  # IoU 15 / 20 of the largest.

    def found(run, validation):
        assert len(validation) == 3
        return lambda example: truth if run.parent.name == "unet" else half

    classes = ("background", "nucleus")
    sets = data.Dataset(
        "nuclei", classes, {s: examples for s in dsb2018.SPLITS}, "nuclei"
    )
    monkeypatch.setattr(dsb2018.data, "dsb2018", lambda source: sets)
    monkeypatch.setattr(dsb2018, "PREDICTORS", dict.fromkeys(dsb2018.PREDICTORS, found))
    for row in dsb2018.TABLE.rows:
        for seed in (0, 1):
            run = tmp_path / "runs" / row.name / f"seed-{seed}"
            write_run(run, loss="none", seed=seed, score=0.5)
    dsb2018.main(flags(tmp_path, "--seeds", "0", "1"))
    table = list(csv.reader((tmp_path / "dsb2018.csv").read_text().splitlines()))
    assert len(table) == 1 + 3 * 2 * 2
    values = {
        (row[0], row[1], row[2]): [float(x) for x in row[3:]] for row in table[1:]
    }
    assert values["unet", "1", "test"] == [1.0] * 7
    # Of 400 true pixels 250 are found. Two of three nuclei match below 0.75, then one.
    want = [500 / 650, 2 / 3, 2 / 3, 2 / 3, 1 / 4, 1 / 4, 1.75 / (2 + 0.5)]
    assert values["mask-rcnn", "0", "validation"] == pytest.approx(want)
    text = (tmp_path / "dsb2018.md").read_text()
    assert "| mask-rcnn | 0.7692 ± 0.0000 | 0.6667 ± 0.0000 |" in text
    assert "--steps 6600 --seed SEED`" in text
    with Image.open(tmp_path / "dsb2018.png") as picture:
        assert picture.size == (5 * dsb2018.SIDE, 24 + 3 * dsb2018.SIDE)
    capfd.readouterr()


def test_own_data(rows, tmp_path, monkeypatch, capfd):
    import own_data

    label = np.array([[0, 1], [255, 1]], np.uint8)
    example = {"image": np.full((2, 2, 3), 7, np.uint8), "label": label}
    sets = data.Dataset("x", ("sky", "road"), {"train": [example] * 2, "test": []}, "x")
    monkeypatch.setattr(own_data.data, "camvid", lambda source: sets)
    call = ["--camvid", "DATA", "--runs", tmp_path, "--out", tmp_path]
    own_data.main([*map(str, call)])
    folder = tmp_path / "camvid-folder"
    assert (folder / "classes.txt").read_text() == "sky\nroad\n"
    with Image.open(folder / "train/masks/0001.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), label)
    planned, pilot, by_hand = (tmp_path / "log.txt").read_text().splitlines()
    assert planned.startswith(f"train --data {folder} --minutes 15 --seed 0 --run")
    script = "camvid_unet_efficientnet.py --source DATA --steps 40 --seed 0"
    assert script in pilot
    assert script in by_hand  # All runs took 1.5 s.
    # An update of 4 images takes 1 / 40 s, 40 of them 1 s, and the rest 0.5 s.
    assert own_data.updates_within(10.5, tmp_path / "camvid" / "pilot") == 400
    text = (tmp_path / "own_data.md").read_text()
    assert "| camvid | from the images | mean_iou | 0.5800 | 0.0 | 100.0% |" in text
    assert "`segjax train --data DIR --minutes 15 --seed 0`" in text
    own_data.main(list(map(str, call)))
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 3
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        own_data.main(["--dsb2018", str(tmp_path), "--out", str(tmp_path)])
    assert "error: --dsb2018: " in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["eroded", "dilated", "shifted", "swapped"])
def test_masks_are_altered_as_named(kind, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import dsb2018_mislabeled

    rows, columns = np.mgrid[:60, :50]
    examples = []
    for n in range(20):
        label = np.zeros((60 + n, 50), np.uint8)
        label[:60][(rows - 30) ** 2 + (columns - 25) ** 2 <= (10 + n % 5) ** 2] = 1
        examples.append({"label": label, "image": None})
    got = dsb2018_mislabeled.Mislabeled(examples, kind, 0.2)
    assert len(got.wrong) == 4
    for n, before in enumerate(examples):
        after = got[n]["label"]
        if n not in got.wrong:
            assert after is before["label"]
            continue
        assert (after.shape, after.dtype) == (before["label"].shape, np.uint8)
        was, now = before["label"] == 1, after == 1
        radii = [np.sqrt(mask.sum() / np.pi) for mask in (was, now)]
        inside = [(was & now).sum() == mask.sum() for mask in (was, now)]
        if kind == "eroded":
            assert inside == [False, True]
            assert radii[0] - radii[1] == pytest.approx(3, abs=0.5)
        elif kind == "dilated":
            assert inside == [True, False]
            assert radii[1] - radii[0] == pytest.approx(3, abs=0.5)
        elif kind == "shifted":
            assert was.sum() == now.sum()
            centers = [np.argwhere(mask).mean(0) for mask in (was, now)]
            assert np.hypot(*(centers[0] - centers[1])) == pytest.approx(9, abs=0.8)
        else:
            assert now.any()
            assert not np.array_equal(was, now)


@pytest.mark.parametrize(
    "name",
    [
        "drive",
        "camvid",
        "isbi2012",
        "label_noise",
        "camvid_curve",
        "dsb2018",
        "dsb2018_pretraining",
        "rare_crops",
    ],
)
def test_flags_of_the_tables_exist(rows, name, tmp_path):
    import importlib

    from segjax.cli import flags as cli_flags
    from segjax.cli import scripts

    found = importlib.import_module(name).TABLE
    for quick in (False, True):
        given = flags(tmp_path, *["--quick"] * quick)
        chosen = rows.options(found, "", given)
        for row in found.rows:
            build = scripts.load(ROOT / "experiments" / row.script)
            args = rows.command(found, chosen, row, 3)[2:]
            kept = cli_flags.read(_only_flags(build), args, prog="segjax train")
            assert kept[found.each.removeprefix("--")] == 3


def _only_flags(build):
    """A function with the same flags that returns them."""
    import functools

    @functools.wraps(build)
    def given(**options):
        return options

    given.__annotations__ = {**build.__annotations__, "return": dict}
    return given
