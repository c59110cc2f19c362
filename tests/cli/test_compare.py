"""`segjax compare` and `segjax.results`, on run folders of known results."""

import csv
import json

import numpy as np
import pytest
import scipy.stats
from PIL import Image

import segjax as library
from tests.cli.conftest import expect_one_error_line
from tests.fake_runs import write_run

SCORES = {"ce": (0.60, 0.62, 0.61), "dice": (0.70, 0.735, 0.72)}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def groups(tmp_path):
    for loss, scores in SCORES.items():
        for seed, score in enumerate(scores):
            folder = tmp_path / loss / f"seed-{seed}"
            write_run(folder, loss=loss, seed=seed, score=score)
    return tmp_path


def test_table_equals_scipy(segjax, groups):
    out = groups / "out"
    got = segjax(
        *("compare", groups / "ce", groups / "dice", "--out", out),
        *("--metric", "mean_iou", "hd95", "--lower", "hd95"),
    )
    assert got.code == 0, got.err
    assert "mean_iou (higher is better), test" in got.out
    assert "paired by seed" in got.out
    with open(out / "compare.csv") as file:
        rows = list(csv.DictReader(file))
    assert [r["group"] for r in rows[:2]] == ["scenes, loss ce", "scenes, loss dice"]
    a, b = map(np.array, SCORES.values())
    want = scipy.stats.ttest_rel(b, a)
    ends = want.confidence_interval()
    values = [float(rows[1][k]) for k in ("difference", "p_holm")]
    assert values == pytest.approx([(b - a).mean(), want.pvalue], rel=1e-6)
    values = [float(rows[1][f"difference_{k}"]) for k in ("low", "high")]
    assert values == pytest.approx([ends.low, ends.high], rel=1e-6)
    assert float(rows[0]["std"]) == pytest.approx(a.std(ddof=1), rel=1e-6)
    assert [r["best"] for r in rows] == ["0", "1", "0", "1"]
    markdown = (out / "compare.md").read_text()
    assert f"| scenes, loss ce | 3 | {a.mean():.4f} ± {a.std(ddof=1):.4f}" in markdown
    assert f"**{b.mean():.4f} ± {b.std(ddof=1):.4f}**" in markdown
    latex = (out / "compare.tex").read_text()
    assert rf"$\mathbf{{{b.mean():.4f} \pm {b.std(ddof=1):.4f}}}$" in latex
    assert r"mean\_iou $\uparrow$ & hd95 $\downarrow$ \\" in latex
    with Image.open(out / "compare.png") as picture:
        assert picture.width > 600


def test_over_images_equals_scipy(segjax, groups, rng):
    scores = rng.random((2, 3, 8))
    for loss, seeds in zip(SCORES, scores, strict=True):
        for seed, values in enumerate(seeds):
            # Rows are ranked, not in the order of the split.
            rows = [f"{i},{7 - i},x,{values[7 - i]}" for i in range(8)]
            text = "\n".join(["rank,index,name,mean_iou", *rows])
            (groups / loss / f"seed-{seed}/evaluation-test-best.csv").write_text(text)
    out = groups / "out"
    args = ["compare", groups / "ce", groups / "dice", "--images", "--out", out]
    got = segjax(*args)
    assert got.code == 0, got.err
    assert "mean_iou (higher is better), test, over images" in got.out
    with open(out / "compare.csv") as file:
        row = [r for r in csv.DictReader(file) if r["over"] == "images"][1]
    want = scipy.stats.ttest_rel(scores[1].mean(0), scores[0].mean(0))
    assert float(row["p_holm"]) == pytest.approx(want.pvalue, rel=1e-5)
    assert row["n"] == "8"
    expect_one_error_line(segjax(*args, "--metric", "hd95"), "no hd95 of images, only")
    (groups / "ce/seed-1/evaluation-test-best.csv").write_text("index,mean_iou\n0,1\n")
    expect_one_error_line(segjax(*args), "was evaluated on 1 images, others on 8")
    (groups / "ce/seed-1/evaluation-test-best.csv").unlink()
    expect_one_error_line(segjax(*args), "Write it: segjax evaluate")


def test_equal_runs_do_not_differ(segjax, tmp_path):
    for loss in ("a", "b"):
        for seed, score in enumerate((0.6, 0.7, 0.8)):
            folder = tmp_path / loss / str(seed)
            write_run(folder, loss=loss, seed=seed, score=score)
    got = segjax("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert got.code == 0, got.err
    table = (tmp_path / "out/compare.md").read_text()
    assert "| +0.0000 | +0.0000 to +0.0000 | 1 |" in table
    assert "**" not in table


def test_folds_are_values_of_a_group(segjax, tmp_path):
    scores = {"ce": (0.60, 0.66, 0.63), "dice": (0.70, 0.735, 0.72)}
    for loss, values in scores.items():
        for fold, score in enumerate(values):
            folder = tmp_path / loss / f"fold-{fold}"
            flags = {"fold": fold}
            write_run(folder, loss=loss, score=score, data=f"d{fold}", flags=flags)
            rows = f"index,mean_iou\n0,{score}\n1,{score + 0.01}\n"
            (folder / "evaluation-test-best.csv").write_text(rows)
    both = tmp_path / "ce", tmp_path / "dice"
    got = segjax("compare", *both, "--images", "--out", tmp_path / "out")
    assert got.code == 0, got.err
    assert "Folds share most" in " ".join(got.out.split())
    lines = (tmp_path / "out" / "compare.csv").read_text().splitlines()
    cells = list(csv.DictReader(lines))
    assert [row["n"] for row in cells] == ["3", "3", "6", "6"]
    want = scipy.stats.ttest_rel(scores["dice"], scores["ce"])
    np.testing.assert_allclose(float(cells[1]["p_holm"]), want.pvalue)
    assert library.results(tmp_path / "ce")[2]["fold"] == 2
    write_run(tmp_path / "one", loss="x", data="d0", flags={"fold": 0})
    text = "index,mean_iou\n0,0.5\n1,0.5\n"
    (tmp_path / "one" / "evaluation-test-best.csv").write_text(text)
    other = segjax("compare", *both, tmp_path / "one", "--images")
    expect_one_error_line(other, "other folds")
    other = segjax("compare", *both, tmp_path / "one", "--paired")
    expect_one_error_line(other, "0 (fold 0), 0 (fold 1)")
    write_run(tmp_path / "two", loss="x", data="d1", flags={"fold": 0})
    other = segjax("compare", tmp_path / "ce", tmp_path / "two")
    expect_one_error_line(other, "other data")


def test_other_seeds_are_independent_groups(segjax, groups):
    write_run(groups / "more/seed-7", loss="dice", seed=7, score=0.71)
    args = [groups / "ce", groups / "dice", groups / "more"]
    got = segjax("compare", *args)
    assert got.code == 0, got.err
    assert "independent groups (Welch)" in got.out
    expect_one_error_line(
        segjax("compare", *args, "--paired"),
        "needs the same seeds",
        "scenes, loss dice has 0, 1, 2, 7",
    )


def test_edited_scripts_are_groups_of_their_own(segjax, groups):
    write_run(groups / "edited", seed=0, score=0.8, digest="bbccddee")
    got = segjax("compare", groups / "ce", groups / "edited")
    assert "(script bbccdd)" in got.out


def test_messages(segjax, groups, tmp_path):
    one = groups / "ce"
    (groups / "empty").mkdir()
    expect_one_error_line(segjax("compare", groups / "empty"), "has no run.json")
    expect_one_error_line(
        segjax("compare", one, "--metric", "iou"),
        "No run has the metric iou. They have mean_iou, hd95",
    )
    write_run(groups / "other", seed=5, data="d2")
    expect_one_error_line(
        segjax("compare", one, groups / "other"), "other data (d1, d2)"
    )
    write_run(groups / "cropped", loss="x", crops="c2")  # The same data.
    assert segjax("compare", one, groups / "cropped").code == 0
    write_run(groups / "validated", seed=5, split="validation")
    expect_one_error_line(
        segjax("compare", one, groups / "validated"), "one split, got test, validation"
    )
    write_run(groups / "twice", seed=1, score=0.3)
    expect_one_error_line(segjax("compare", one, groups / "twice"), "the same seed, 1")
    (groups / "twice/result.json").unlink()
    expect_one_error_line(
        segjax("compare", groups / "twice"), "its training is not finished"
    )
    expect_one_error_line(segjax("compare"), "needs run folders")


def test_a_result_of_another_form_is_one_line(segjax, groups):
    path = groups / "ce/seed-1/result.json"
    path.write_text(json.dumps({"metrics": [0.5], "split": "test"}))
    got = segjax("compare", groups / "ce", groups / "dice")
    expect_one_error_line(got, "result.json", "metrics")


def test_names_are_shown_as_they_are(segjax, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"r/{seed}", loss="[b] $x_1$ | &", seed=seed, score=0.5)
        write_run(tmp_path / f"s/{seed}", loss="-", seed=seed, score=0.6)
    out = tmp_path / "out"
    got = segjax("compare", tmp_path / "r", tmp_path / "s", "--out", out)
    assert got.code == 0, got.err
    assert "[b] $x_1$ | &" in got.out
    assert r"[b] \$x\_1\$ | \&" in (out / "compare.tex").read_text()
    assert "[b] $x_1$ \\| &" in (out / "compare.md").read_text()


def test_rows_for_pandas(groups):
    rows = library.results(groups / "ce", groups / "dice" / "seed-1")
    assert [row["mean_iou"] for row in rows] == [*SCORES["ce"], SCORES["dice"][1]]
    assert rows[-1]["flag.loss"] == "dice"
    assert (rows[-1]["experiment"], rows[-1]["seed"]) == ("scenes", 1)
    assert np.isnan(rows[0]["none"])
    assert "flag.seed" not in rows[0]
