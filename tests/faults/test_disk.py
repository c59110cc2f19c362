"""A full disk ends training by one clear line; with room, it goes on as if nothing was.

The disk is a small one of its own.
"""

import pytest

from tests.faults.conftest import checkpoint_steps, fill, lines

pytestmark = pytest.mark.slow


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
