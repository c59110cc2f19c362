"""Every command that writes, on disks with more or less room: a result, or one line.

What was there before stays; with room, the command ends as if nothing had been.
"""

import shutil

import numpy as np
import pytest

from segjax import data, interop, viz
from segjax.cli import errors
from tests.faults.conftest import fill
from tests.faults.killing import Command, contents
from tests.faults.tally import CASES, otherwise
from tests.faults.test_killed_commands import write_resnet18
from tests.faults.test_runs import call, metrics_of, one_line
from tests.faults.test_runs import original as original

HERE = max(2, CASES // 100)
pytestmark = pytest.mark.timeout(max(600, 60 * HERE))


@pytest.fixture
def case(disk, capfd, tally):
    """Runs `work() -> exit code` with so much room; the kinds of its end."""

    def run(kind, work, room, *, kept=()):
        before = {folder: contents(folder) for folder in kept}
        tally.case(f"full disk, {kind}")
        capfd.readouterr()
        fill(disk / "filler", leave=room)
        try:
            code = work()
        finally:
            (disk / "filler").unlink()
        _, err = capfd.readouterr()
        with otherwise("lost"):
            for folder, files in before.items():
                assert files.items() <= contents(folder).items()
        assert code in (0, 2), err
        if code == 2:
            one_line(err)
            assert "No space left on device" in err
        tally.count("one line" if code == 2 else "right")
        return code

    return run


def rooms(most, seed):
    """None at all, then at random."""
    rng = np.random.default_rng(seed)
    return [0, *map(int, rng.integers(0, most, HERE - 1))]


def test_training(disk, case, original):
    folder, flags = original
    run = disk / "run"
    for room in rooms(400_000, 0):
        code = case("train", lambda: call("train", *flags, "--run", run), room)
        if code:
            resume = ["--resume"] if (run / "run.json").exists() else []
            assert call("train", *flags, "--run", run, *resume) == 0
        assert metrics_of(run) == metrics_of(folder / "train")
        shutil.rmtree(run)


def test_the_lock_names_itself(disk, capfd, original):
    _, flags = original
    fill(disk / "filler")
    assert call("train", *flags, "--run", disk / "run") == 2
    said = capfd.readouterr().err
    assert f"error: {disk}/run/lock could not be written: No space" in said


def test_the_report(disk, case, original):
    folder, _ = original
    run = shutil.copytree(folder / "train", disk / "run")
    viz.write_report(run)
    before = contents(run)
    for room in rooms(60_000, 1):
        work = lambda: errors.exit_code(lambda: viz.write_report(run))  # noqa: E731
        case("report", work, room, kept=[run / "checkpoints", run / "samples"])
        assert contents(run) == before


@pytest.mark.parametrize("subcommand", ["evaluate", "inspect"])
def test_what_is_written_into_a_run(disk, case, original, subcommand):
    folder, _ = original
    run = shutil.copytree(folder / "train", disk / "run")
    assert call(subcommand, run) == 0
    before = contents(run)
    for room in rooms(60_000, 2):
        case(subcommand, lambda: call(subcommand, run), room)
        with otherwise("half-written"):
            assert contents(run) == before


def test_predictions(disk, case, original):
    folder, _ = original
    out = disk / "out"
    args = ("predict", folder / "train", folder / "source/images", "--out", out)
    assert call(*args) == 0
    whole = contents(out)
    for room in rooms(4096 * len(whole), 3):
        # Each takes the place of one that is there, which stays until then.
        (out / "00.png").write_bytes(b"mine")
        case("predict", lambda: call(*args), room)
        with otherwise("half-written"):
            assert contents(out) in (whole, whole | {"00.png": b"mine"})
        assert call(*args) == 0
        assert contents(out) == whole
    for room in rooms(4096 * len(whole), 4):
        shutil.rmtree(out)
        case("predict", lambda: call(*args), room)
        with otherwise("half-written"):
            assert (contents(out) if out.exists() else {}).items() <= whole.items()


def test_prepared_data(disk, case, original, monkeypatch):
    folder, _ = original
    root, source = disk / "prepared", folder / "source"
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(root))
    args = ("data", "prepare", "folder", "--source", source)
    fingerprint = data.folder(source, data_dir=disk / "whole").fingerprint
    for room in rooms(120_000, 5):
        code = case("data prepare", lambda: call(*args), room)
        made = [p for p in root.rglob("*") if p.is_file()] if root.exists() else []
        with otherwise("half-written"):
            assert bool(made) == (code == 0)
        assert call(*args) == 0
        assert data.folder(source).fingerprint == fingerprint
        shutil.rmtree(root)


# TensorStore's threads may speak after the command, here in one process with the test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_imported_variables(disk, case, tmp_path):
    checkpoint, out = tmp_path / "resnet18.safetensors", disk / "imported"
    write_resnet18(checkpoint)
    args = ("import", checkpoint, "--model", "resnet18", "--out", out)
    for room in rooms(8_000_000, 6):
        assert case("import", lambda: call(*args), room) == 2
        with otherwise("half-written"):
            assert list(disk.iterdir()) == []


def test_an_import_that_fails_says_one_line(disk, tmp_path):
    """In a process of its own, whose threads speak until its end."""
    checkpoint, out = tmp_path / "resnet18.safetensors", disk / "imported"
    write_resnet18(checkpoint)
    args = ["import", checkpoint, "--model", "resnet18", "--out", out]
    ended = Command(args, tmp_path / "watched", {}).run()
    assert ended.err == (
        f"error: {out} could not be written: No space left on device. Fix the cause, "
        f"or name another folder.\n"
    )
    assert ended.code == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_saved_variables(disk):
    numbers = np.random.default_rng(0).normal(size=(2000, 2000)).astype(np.float32)
    with pytest.raises(ValueError, match=r"variables could not be written: No space"):
        interop.save(disk / "variables", {"params": {"x": numbers}})
    assert list(disk.iterdir()) == []
    interop.save(disk / "variables", {"params": {"x": numbers[:9]}})
    loaded = interop.load(disk / "variables")
    np.testing.assert_array_equal(loaded["params"]["x"], numbers[:9])
    assert [p.name for p in disk.iterdir()] == ["variables"]
