"""XLA's options for the programs that train, evaluate and predict, and its cores."""

import functools
import os

import jax

_OPTION = "xla_cpu_experimental_ynn_fusion_type"
_VALUE = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def compiler_options() -> dict[str, str]:
    """Returns the `compiler_options` of `jax.jit` for the default backend.

    On a CPU, XLA's own setting gives most convolutions to the library YNNPACK, which
    computes them on one core unless they have 128 channels. This one leaves them to
    Eigen, which uses all cores, and keeps YNNPACK for matrix products: 0.6 to 1.0 times
    as long for the convolutions of a U-Net on 2 cores (docs/speed.md).

    Returns:
        No options on another backend, with a version of XLA that does not know the
        option, or where `XLA_FLAGS` sets it. The result is part of a run's
        environment, because it changes the order of sums.
    """
    if jax.default_backend() != "cpu" or _OPTION in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {_OPTION: _VALUE} if _is_known() else {}


@functools.cache
def _is_known() -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={_OPTION: _VALUE})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def cores() -> int:
    """The number of cores for this process; XLA splits its sums over them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
