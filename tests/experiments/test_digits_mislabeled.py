"""`segjax inspect` finds training labels that are wrong on purpose."""

import csv
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from segjax.data.builders import digits

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
SCRIPT = EXPERIMENTS / "digits_mislabeled.py"
SCENES = 3_000


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import digits_mislabeled

    return digits_mislabeled


class Scenes:
    """The training scenes, composed without a file."""

    def __getitem__(self, index):
        return digits.scene("train", int(index))


def test_which_labels_are_wrong_and_how(script):
    original = Scenes()
    examples = script.Mislabeled(original, 200, 0.06)
    assert len(examples) == 200
    assert len(set(examples.wrong)) == 12
    for i in range(200):
        before, after = original[i], examples[i]
        np.testing.assert_array_equal(after["image"], before["image"])
        same = before["label"] == after["label"]
        if i in examples.renamed:
            np.testing.assert_array_equal(after["label"] > 0, before["label"] > 0)
            assert not same[before["label"] > 0].any()
            assert len(np.unique(after["label"])) > 1
        elif i in examples.exchanged:
            assert not same.all()
            matches = [
                j
                for j in examples.exchanged
                if (original[j]["label"] == after["label"]).all()
            ]
            assert len(matches) == 1
            assert matches[0] != i
        else:
            assert same.all()
    with pytest.raises(IndexError):
        examples[200]


@pytest.mark.slow
def test_inspect_finds_the_wrong_labels(script, tmp_path, monkeypatch):
    """At least 80 % of the wrong labels are in the first 10 % of the ranking."""
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(tmp_path / "data"))
    run = tmp_path / "run"
    _segjax("train", SCRIPT, "--run", run, "--scenes", SCENES)
    _segjax("inspect", run, "--checkpoint", "last")
    with (run / "inspection-train-last.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SCENES
    known = script.Mislabeled(Scenes(), SCENES, 0.03)
    assert len(known.wrong) == 0.03 * SCENES
    for column in ("loss", "gradient_norm"):
        assert np.isfinite([float(row[column]) for row in rows]).all()
        ranking = sorted(rows, key=lambda row: -float(row[column]))
        first = {int(row["index"]) for row in ranking[: SCENES // 10]}
        found = {
            kind: float(np.mean([i in first for i in getattr(known, kind)]))
            for kind in ("wrong", "exchanged", "renamed")
        }
        print(column, found)
        # The threshold of 80 % is for the default ranking; chance level is 10 %.
        minimum = 0.8 if column == "loss" else 0.3
        assert min(found.values()) >= minimum, (column, found)


def _segjax(*args):
    # Without the four CPU devices of the tests, which would share the cores, and with
    # oneDNN where it is there: the training is long.
    environment = os.environ | {"XLA_FLAGS": "", "SEGJAX_ONEDNN": ""}
    done = subprocess.run(
        [sys.executable, "-m", "segjax.cli.main", *map(str, args)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
