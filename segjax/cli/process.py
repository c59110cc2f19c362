"""What the command sets once for its whole process, before the first program runs."""

import ctypes
import os
import pathlib
import sys

import jax

_CACHE = "~/.cache/segjax/jax"
# glibc's mallopt parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, unless the user chose already."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = str(pathlib.Path(_CACHE).expanduser())
        jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def keep_freed_memory() -> None:
    """Lets glibc hand out freed memory again instead of returning it to the system.

    XLA allocates its temporary arrays anew for each step. By default glibc maps and
    unmaps them, and each step pays for the page faults again: a U-Net step (16 to 128
    wide, batch 8, 128x128) on two cores had 54,000 of them and took 310 to 440 ms,
    with this 4,000 and 240 to 280 ms. Does nothing without glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_ARENA_MAX, 1)  # Other arenas are too small for arrays, which are mapped.
    mallopt(_MMAP_THRESHOLD, 2**31 - 1)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**28)


def run_one_program_at_a_time() -> None:
    """Lets a CPU begin a program when the one before it has ended.

    A program's temporary arrays are taken when it is dispatched, so that a loop that
    runs ahead holds them once for each waiting step: 12 steps of the U-Net above held
    1.5 GB, one at a time 0.6 GB, in the same time. Other devices are not touched.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def ignore_late_writers() -> None:
    """Keeps TensorStore's threads quiet where a save has failed.

    Orbax closes its event loop as soon as one array could not be written. The writers
    of the others then fail to tell it so, and each would print a traceback, while the
    failure itself is raised and told.
    """
    before = sys.unraisablehook

    def receive(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = receive


def use_deterministic_operations() -> None:
    """Asks XLA for the same bits from each run on a GPU.

    Comes before the first computation: XLA reads its flags once. Sums whose order
    races (scatters, some convolution gradients) take slower forms, or are refused.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
