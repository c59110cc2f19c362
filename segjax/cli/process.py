"""Settings of the whole process, made before the first program runs."""

import os
import pathlib

import jax

_CACHE = "~/.cache/segjax/jax"


def keep_compiled_programs() -> None:
    """Enables JAX's persistent compilation cache, unless the user configured it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = str(pathlib.Path(_CACHE).expanduser())
        jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def run_one_program_at_a_time() -> None:
    """Disables asynchronous dispatch on the CPU.

    Otherwise a loop that runs ahead allocates the temporary arrays of every waiting
    step (docs/speed.md). Other devices are not affected.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def use_deterministic_operations() -> None:
    """Makes XLA compute the same bits in every run on a GPU.

    Must run before the first computation, when XLA reads its flags. Sums whose order is
    not deterministic (scatters, some convolution gradients) use slower forms, or fail.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
