"""Finding oneDNN, compiling what calls it, and what is said where that fails."""

import os
import subprocess
import sys

import pytest

from segjax import onednn
from tests.onednn.machine import NEEDED

LOOK = "from segjax import onednn; print(onednn.version())"
CONVOLVE = """
import jax, jax.numpy as jnp
from segjax import onednn, ops
from segjax.ops.convolution import conv_by_xla
assert onednn.version()
x, kernel = jnp.arange(2.0 * 9 * 9 * 4).reshape(2, 9, 9, 4) / 99, jnp.ones((3, 3, 4, 4))
def loss(form):
    return jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(form(x, k))), (0, 1)))
for a, b in zip(loss(ops.conv)(x, kernel), loss(conv_by_xla)(x, kernel)):
    assert jnp.abs(a - b).max() < 1e-3, (a, b)
"""


def look(code=LOOK, **environment):
    """Looks in a new process."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={**os.environ, "SEGJAX_ONEDNN": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_off_by_the_variable():
    assert os.environ["SEGJAX_ONEDNN"] == "0"
    assert onednn.version() is None


@NEEDED
def test_compiled_once(tmp_path):
    first = look(HOME=str(tmp_path))
    assert first.stdout.startswith("20")
    assert not first.stderr
    (made,) = tmp_path.rglob("convolutions.so")
    assert os.listdir(made.parent) == [made.name]
    # A compiler that cannot work is not needed any more.
    assert look(HOME=str(tmp_path)).stdout == first.stdout
    assert [made] == list(tmp_path.rglob("convolutions.so"))


@NEEDED
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "sh -c 'exit 3'"])
def test_a_compiler_that_does_not_work(tmp_path, compiler):
    found = look(HOME=str(tmp_path), CXX=compiler)
    assert found.stdout == "None\n"
    assert "XLA computes convolutions" in found.stderr
    assert "compiler, such as g++, or set SEGJAX_ONEDNN=0" in found.stderr
    assert not list(tmp_path.rglob("*.so"))


@NEEDED
def test_many_cores_call_by_one_thread(tmp_path):
    compiler = "c++ -DSEGJAX_DIRECT_CORES=0"
    look(CONVOLVE, HOME=str(tmp_path), CXX=compiler)
    assert list(tmp_path.rglob("convolutions.so"))
