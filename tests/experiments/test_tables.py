"""The scripts of tables, with a program in place of training."""

import csv
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import json, pathlib, subprocess, sys
sys.path.insert(0, ROOT)
from tests.cli.test_compare import write_run
if sys.argv[1] == "compare":
    sys.exit(subprocess.call([sys.executable, "-m", "segjax", *sys.argv[1:]]))
with open(LOG, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
flags = dict(zip(sys.argv[3::2], sys.argv[4::2]))
run, loss = pathlib.Path(flags["--run"]), flags.get("--loss", "none")
seed = int(flags.get("--seed") or flags.get("--fold"))
if "--resume" in sys.argv:
    (run / "kept.json").rename(run / "result.json")
    sys.exit()
write_run(run, loss=loss, seed=seed, score=0.5 + seed ** 2 / 100 + len(loss) / 50)
evals = [{"kind": "eval", "step": s, "mean_iou": seed + s / 10} for s in (1, 2)]
evals.append({"kind": "eval", "step": 1, "final": True, "mean_iou": 0.0})
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
    isbi2012.main(flags(tmp_path))
    text = (tmp_path / "isbi2012.md").read_text()
    assert "| 4 | 4.2000 |" in text  # The last evaluation that is not the final one.
    assert "| mean ± std | 2.2000 ± 1.5811 |" in text
    assert "--fold K` for K = 0 to 4" in text
    capfd.readouterr()


@pytest.mark.parametrize("name", ["drive", "camvid", "isbi2012"])
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
