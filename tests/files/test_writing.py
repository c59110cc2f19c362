"""Files are replaced atomically."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from segjax.files import writing

NEW = b"new" * 1000


def test_a_file_is_written(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", NEW, b""):
        writing.write_bytes(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "sick"), KeyboardInterrupt()])
def test_failures_keep_the_old_file(tmp_path, monkeypatch, call, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def failing(*_):
        raise error

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(type(error)) as caught:
        writing.write_bytes(path, NEW)
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_no_link_is_written_through(tmp_path):
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "a").symlink_to("precious")
    writing.write_bytes(tmp_path / "a", NEW)
    assert (tmp_path / "precious").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == NEW


WRITER = """
import pathlib, sys
from segjax.files import writing

path = pathlib.Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    writing.write_bytes(path, str(number % 10).encode() * 2_000_000)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_kills_at_any_moment(tmp_path, signum):
    path = tmp_path / "a"
    path.write_bytes(b"0" * 2_000_000)
    for delay in (0, 0.003, 0.011, 0.023):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signum)
        process.communicate()
        content = path.read_bytes()
        assert len(content) == 2_000_000
        assert len(set(content)) == 1
        left = [p.name for p in tmp_path.iterdir()]
        assert sorted(left) in (["a"], [".a.tmp", "a"])
    writing.write_bytes(path, NEW)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
