"""Names from files are printed unchanged and are not formulas in the CSV."""

import csv

import numpy as np
from rich.console import Console

from segjax import train
from segjax.cli import inspect
from segjax.train.metric_writer import MetricWriter
from tests.cli.conftest import write_scenes

COLUMNS = {
    "index": np.array([3, 1]),
    "name": ["=cmd|' /C calc'!A0", "lane [solid] :smile:"],
    "loss": np.array([-1.5, 0.25]),
    "loss/@sum": np.array([1.0, 2.0]),
}


def test_class_names_are_printed_unchanged(segjax, tmp_path):
    source = write_scenes(tmp_path / "scenes", count=4)
    (source / "classes.txt").write_text("lane [solid]\n[/]\n:smile:\n")
    got = segjax("data", "prepare", "folder", "--source", source)
    assert got.code == 0, got.err
    assert "Classes: lane [solid], [/], :smile:" in got.out


def test_names_in_the_table_of_inspect_are_unchanged(capsys):
    console = Console(markup=False, emoji=False, width=200)
    console.print(inspect._table(COLUMNS, "[red]: train"))
    printed = capsys.readouterr().out
    assert "[red]: train" in printed
    assert "lane [solid] :smile:" in printed


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    names = ["=1", "+1", "-1", "@x", "\tx", "\rx", "plain", "a=b", "'=1"]
    columns = {"index": np.arange(9), "name": names, "loss": np.linspace(-1, 1, 9)}
    inspect._write_csv(tmp_path / "a.csv", columns | {"=x": np.zeros(9)})
    with (tmp_path / "a.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["rank", "index", "name", "loss", "'=x"]
    want = [f"'{n}" for n in names[:6]] + names[6:]
    assert [row[2] for row in rows] == want
    assert float(rows[0][3]) == -1  # Numbers stay numbers.
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_lines_of_training_are_unchanged(capsys, tmp_path):
    config = train.TrainConfig(steps=1, batch_size=1)
    with MetricWriter(tmp_path, config=config, first_step=0) as writer:
        writer.print_line(":smile: 0.00: never predicted [/b] [red]x")
    assert ":smile: 0.00: never predicted [/b] [red]x\n" in capsys.readouterr().out
