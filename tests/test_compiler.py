"""XLA's options for a CPU: what they do, and who may set them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import compiler, ops
from segjax.compiler import compiler_options

X, KERNEL = jnp.ones((2, 16, 16, 32)), jnp.ones((3, 3, 32, 32))


def program(options):
    """Of a convolution that XLA gives to YNNPACK by itself."""
    convolve = jax.jit(ops.conv, compiler_options=options)
    return convolve.lower(X, KERNEL).compile()


def test_convolutions_are_not_given_to_ynnpack():
    assert (
        "ynn_fusion" in program({}).as_text()
    )  # If not, the option is not needed any more.
    assert "ynn_fusion" not in program(compiler_options()).as_text()


def test_numbers_are_the_same_up_to_rounding():
    one, other = (program(o)(X, KERNEL) for o in ({}, compiler_options()))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_other_backends_have_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == {}


def test_an_xla_without_the_option_has_none(monkeypatch):
    monkeypatch.setattr(compiler, "_VALUE", "LIBRARY_FUSION_TYPE_OF_ANOTHER_XLA")
    compiler._is_known.cache_clear()
    try:
        assert compiler_options() == {}
    finally:
        compiler._is_known.cache_clear()


@pytest.mark.parametrize("value", ["-LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", ""])
def test_what_the_user_set_stays(value):
    flags = f"--xla_cpu_experimental_ynn_fusion_type={value}"
    code = "from segjax.compiler import compiler_options; print(compiler_options())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "{}\n"
