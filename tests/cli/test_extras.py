"""Commands on a base install: a missing extra is named, and the rest works."""

import pytest

from tests.cli.conftest import expect_one_error_line


def test_coco_without_pycocotools(segjax, without, tmp_path):
    without("pycocotools")
    got = segjax("data", "prepare", "coco", "--source", tmp_path)
    expect_one_error_line(got, "pycocotools", 'pip install "segjax[coco]"')


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_training_ends_without_a_report(
    segjax, without, script, source, tmp_path, package
):
    without(package)
    run = tmp_path / "run"
    got = segjax("train", script, "--source", source, "--run", run, "--steps", 6)
    assert got.code == 0, got.err
    notes = [x for x in got.err.splitlines() if x.startswith("note: no report")]
    assert len(notes) == 1
    assert notes[0].endswith('pip install "segjax[report]".')
    assert "Report:" not in got.out
    assert (run / "result.json").exists()
    assert not (run / "report.html").exists()
    assert len(list((run / "samples").iterdir())) == 2


def test_evaluate_and_inspect_without_a_report(segjax, without, run):
    without("jinja2")
    got = segjax("evaluate", run)
    assert got.code == 0, got.err
    assert "note: no report is written: jinja2 is needed" in got.err
    expect_one_error_line(segjax("inspect", run), 'pip install "segjax[report]"')


def test_seeds_end_without_their_curves(segjax, without, script, source, tmp_path):
    without("matplotlib")
    run = tmp_path / "run"
    flags = ["--source", source, "--run", run, "--steps", 6, "--seeds", 0, 1]
    got = segjax("seeds", script, *flags)
    assert got.code == 0, got.err
    assert got.err.count("note: no report is written") == 1
    assert "seeds.json" in got.out
    assert "seeds.png" not in got.out
    assert not (run / "seeds.png").exists()
