"""Only one process can hold a run folder, and the lock ends with the process."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from segjax import train
from segjax.run_folder import lock

HOLD = f"""
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("lock", {lock.__file__!r})
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)  # Faster than importing segjax.train.
with lock.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_error_names_the_process_that_holds_the_lock(tmp_path, other):
    owner = rf"by process {other.pid} on {socket.gethostname()}\. Wait"
    with pytest.raises(ValueError, match=owner):
        with train.locked(tmp_path):
            pass
    with pytest.raises(
        ValueError, match=owner
    ):  # The first attempt did not change the lock.
        with train.locked(tmp_path):
            pass


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_is_released_when_its_process_ends(tmp_path, other, signum):
    other.send_signal(signum)
    other.wait()
    with train.locked(tmp_path):
        owner = (tmp_path / "lock").read_text()
        assert owner == f"process {os.getpid()} on {socket.gethostname()}\n"
        with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
            with train.locked(tmp_path):
                pass


def test_a_lock_is_released_at_the_end_of_its_block(tmp_path):
    for _ in range(2):
        with train.locked(tmp_path):
            pass
    with pytest.raises(KeyError):
        with train.locked(tmp_path):
            raise KeyError
    with train.locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.warns(UserWarning, match="without locks"):
        with train.locked(tmp_path):
            pass
