"""A full disk ends training by one clear line; with room, it goes on as if nothing was.

The disk is a small one of its own, where this process may mount one.
"""

import contextlib
import subprocess

import pytest

from tests.faults.conftest import checkpoint_steps, lines

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path):
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_one_line_and_resume_is_exact(disk, start, whole):
    run = disk / "run"
    training = start(run, env={"STEP_SECONDS": "0.02"})
    assert training.wait_until(training.trains), training.output
    fill(disk / "filler")
    assert training.end() == 2
    errors = [x for x in training.output.splitlines() if not x.startswith("Epoch ")]
    assert len(errors) == 1, training.output
    assert errors[0].startswith(f"error: {run}/")
    assert "could not be written: No space left on device." in errors[0]
    assert not list((run / "checkpoints").glob("*.part"))
    (disk / "filler").unlink()
    kept = checkpoint_steps(run)[-1]
    again = start(run)
    assert again.end() == 0, again.output
    assert again.first_step == kept
    assert lines(run) == lines(whole)
