"""Real training processes whose data fail them."""

import contextlib
import json
import os
import pathlib
import shutil
import signal

import pytest

from tests.faults.conftest import alive

pytestmark = pytest.mark.slow


def readers(training):
    """Ids of its reader processes."""
    found = []
    for pid in alive(training.process.pid):
        with contextlib.suppress(OSError):  # It ended meanwhile.
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"spawn_main" in command:
                found.append(int(pid))
    return found


def errors(training):
    return [x for x in training.output.splitlines() if x.startswith("error: ")]


def test_a_killed_reader_ends_in_one_line_and_training_goes_on(start, folder):
    run = folder / "reader"
    steps = ("--steps", "30")
    training = start(run, *steps, "--num-workers", "2", env={"STEP_SECONDS": "0.2"})
    assert training.wait_until(training.trains), training.output
    pid = min(readers(training))
    os.kill(pid, signal.SIGKILL)
    assert training.end() == 2, training.output
    (line,) = errors(training)
    assert line.startswith("error: a reader process died while reading batch ")
    assert "records " in line
    assert "Use fewer workers" in line
    assert "Traceback" not in training.output
    resumed = start(run, *steps)
    assert resumed.end() == 0, resumed.output


@pytest.fixture
def damaged(start, folder):
    """A copy of the prepared data in which record 5 of the training split is broken."""
    prepared = folder / "prepared"
    if not prepared.exists():
        start(folder / "preparing", "--steps", "24").end()
    copy = folder / "damaged"
    if not copy.exists():
        shutil.copytree(prepared, copy)
        (path,) = copy.rglob("*-train.array_record*")
        whole = bytearray(path.read_bytes())
        # One chunk a record, in order; compression hides the label's "PNG".
        place = whole.index(b"\x89PNG")
        for _ in range(5):
            place = whole.index(b"\x89PNG", place + 1)
        whole[place + 60] ^= 0xFF
        path.write_bytes(bytes(whole))
    return {"SEGJAX_DATA_DIR": str(copy)}


def test_a_corrupt_record_ends_training_in_one_line(start, folder, damaged):
    training = start(folder / "corrupt", "--steps", "24", env=damaged)
    assert training.end() == 2, training.output
    (line,) = errors(training)
    assert line.startswith("error: record 5 of 'train' cannot be read: ")
    assert "--skip-corrupt N" in line
    assert "Traceback" not in training.output


def test_training_leaves_it_out_where_that_is_allowed(start, folder, damaged):
    lines = []
    for workers in ("0", "2"):
        run = folder / f"skipping-{workers}"
        flags = ("--steps", "24", "--num-workers", workers, "--skip-corrupt", "1")
        training = start(run, *flags, env=damaged)
        assert training.end() == 0, training.output
        assert training.output.count("skipped: record 5 of 'train'") == 1
        (told,) = json.loads((run / "result.json").read_text())["skipped_records"]
        assert "record 5 of 'train'" in told
        log = (run / "metrics.jsonl").read_text().splitlines()
        lines.append([timeless(json.loads(line)) for line in log])
    assert lines[0] == lines[1]


def timeless(line):
    return {k: v for k, v in line.items() if "second" not in k and k != "time"}
