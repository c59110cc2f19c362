"""A run that was killed while it wrote its first files starts in the same folder."""

import json
import shutil

import pytest

from tests.cli.conftest import data_dir as data_dir
from tests.cli.conftest import expect_one_error_line
from tests.cli.conftest import script as script
from tests.cli.conftest import segjax as segjax
from tests.cli.conftest import source as source

STEPS = ("--steps", 6, "--batch-size", 4, "--width", 4)
LEFT = {
    "lock": ("lock",),
    "a part of the script": ("lock", ".experiment.py.tmp"),
    "the script": ("lock", "experiment.py"),
    "a part of the manifest": ("lock", "experiment.py", ".run.json.tmp"),
}
"""What a kill leaves, by when it comes."""


def leave(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{")


@pytest.fixture
def flags(script, source):
    return (script, "--source", source, *STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "seeds"


@pytest.fixture
def seeds(segjax, flags, whole):
    """Undisturbed, made once."""
    if not whole.exists():
        assert segjax("seeds", *flags, "--seeds", 0, 1, "--run", whole).code == 0
    return whole


@pytest.mark.parametrize("when", LEFT)
def test_train_starts_where_a_kill_left_its_first_files(segjax, flags, tmp_path, when):
    run = tmp_path / "run"
    leave(run, LEFT[when])
    assert segjax("train", *flags, "--run", run).code == 0
    assert (run / "result.json").exists()


def test_a_folder_without_a_lock_is_not_ours(segjax, flags, tmp_path):
    run = tmp_path / "run"
    leave(run, ["experiment.py"])
    result = segjax("train", *flags, "--run", run)
    expect_one_error_line(result, "is not empty and no run")
    assert (run / "experiment.py").read_text() == "{"


@pytest.mark.parametrize("when", LEFT)
def test_seeds_start_where_a_kill_left_their_first_files(
    segjax, flags, seeds, tmp_path, when
):
    run = tmp_path / "run"
    leave(run / "seed-0", LEFT[when])
    leave(run / "seed-1", ["lock"])
    assert segjax("seeds", *flags, "--seeds", 0, 1, "--run", run).code == 0
    assert_same(run, seeds)


@pytest.mark.parametrize("when", LEFT)
def test_seeds_go_on_where_a_kill_left_one_of_them_without_a_run(
    segjax, flags, seeds, tmp_path, when
):
    run = tmp_path / "run"
    leave(run / "seed-1", LEFT[when])
    (run / "seed-0").mkdir()
    for name in ("run.json", "lock", "experiment.py"):
        shutil.copy(seeds / "seed-0" / name, run / "seed-0")
    call = ("seeds", *flags, "--seeds", 0, 1, "--run", run)
    expect_one_error_line(segjax(*call), "is not empty")
    assert segjax(*call, "--resume").code == 0
    assert_same(run, seeds)


def test_one_seed_resumes_where_a_kill_left_its_first_files(segjax, flags, tmp_path):
    run = tmp_path / "run"
    leave(run / "seed-0", ["lock"])
    got = segjax("seeds", *flags, "--seeds", 0, "--run", run, "--resume")
    assert got.code == 0, got.err
    assert "Seed 0  Test" in got.out


def test_a_seed_that_never_was_is_not_gone_on_with(segjax, flags, seeds, tmp_path):
    run = shutil.copytree(seeds, tmp_path / "run")
    call = ("seeds", *flags, "--seeds", 0, 1, 2, "--run", run, "--resume")
    expect_one_error_line(segjax(*call), "seed-2 has none")


def assert_same(run, seeds):
    for name in ("seed-0", "seed-1"):
        one, two = (
            json.loads((r / name / "result.json").read_text()) for r in (run, seeds)
        )
        assert one["metrics"] == two["metrics"]
        assert (run / name / "experiment.py").read_text() == (
            seeds / name / "experiment.py"
        ).read_text()
