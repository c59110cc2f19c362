"""Finding oneDNN, compiling what calls it, and what is said where that fails."""

import os
import subprocess
import sys

import pytest

from segjax import onednn

LOOK = "from segjax import onednn; print(onednn.version())"


def look(**environment):
    """Looks in a new process."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", LOOK],
        env={**os.environ, "SEGJAX_ONEDNN": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_off_by_the_variable():
    assert os.environ["SEGJAX_ONEDNN"] == "0"
    assert onednn.version() is None


def test_compiled_once(tmp_path, monkeypatch):
    if look().stdout == "None\n":
        pytest.skip("the extra is for x86 Linux with a C++ compiler")
    first = look(HOME=str(tmp_path))
    assert first.stdout.startswith("20")
    assert not first.stderr
    (made,) = tmp_path.rglob("convolutions.so")
    assert os.listdir(made.parent) == [made.name]
    # A compiler that cannot work is not needed any more.
    assert look(HOME=str(tmp_path)).stdout == first.stdout
    assert [made] == list(tmp_path.rglob("convolutions.so"))


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "sh -c 'exit 3'"])
def test_a_compiler_that_does_not_work(tmp_path, compiler):
    if look().stdout == "None\n":
        pytest.skip("the extra is for x86 Linux with a C++ compiler")
    found = look(HOME=str(tmp_path), CXX=compiler)
    assert found.stdout == "None\n"
    assert "Convolutions are computed by XLA" in found.stderr
    assert "Install a C++17 compiler" in found.stderr
    assert not list(tmp_path.rglob("*.so"))
