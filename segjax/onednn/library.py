"""Finds oneDNN, and compiles the functions by which XLA calls it."""

import ctypes
import functools
import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import jax

SWITCH = "SEGJAX_ONEDNN"
"""The environment variable that turns oneDNN off, with the value 0."""

TARGETS = ("forward", "pack", "rectified", "input_gradient", "kernel_gradient")
"""The functions of convolutions.cc."""

_SOURCE = pathlib.Path(__file__).with_name("convolutions.cc")
_CACHE = "~/.cache/segjax/onednn"
_PACKAGES = {"libdnnl.so.3": "onednn-cpu-gomp", "dnnl.hpp": "onednn-devel-cpu-gomp"}


def version() -> str | None:
    """Version of the oneDNN that computes convolutions on CPUs; None without."""
    if os.environ.get(SWITCH) == "0" or jax.default_backend() != "cpu":
        return None
    return metadata.version(_PACKAGES["libdnnl.so.3"]) if _is_loaded() else None


@functools.cache
def _is_loaded() -> bool:
    """Compiles, loads and registers the library, once a process.

    Returns:
        False, without a word where the extra is not installed, and with a warning where
        it is and does not work.
    """
    found = {file: _installed(file) for file in _PACKAGES}
    onednn, header = found["libdnnl.so.3"], found["dnnl.hpp"]
    if onednn is None or header is None:
        return False
    try:
        path = _compiled(onednn, header)
        with _threads_that_sleep():
            library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        warnings.warn(
            f"XLA computes convolutions, which is slower: oneDNN is there, but what "
            f"calls it could not be compiled and loaded ({lines[0]}). Install a C++17 "
            f"compiler, such as g++, or set {SWITCH}=0.",
            stacklevel=2,
        )
        return False
    for name in TARGETS:
        function = getattr(library, f"segjax_onednn_{name}")
        capsule = jax.ffi.pycapsule(function)
        jax.ffi.register_ffi_target(f"segjax_onednn_{name}", capsule, platform="cpu")
    return True


def _installed(name: str) -> pathlib.Path | None:
    """The path of a file that one of the packages brings."""
    try:
        files = metadata.files(_PACKAGES[name]) or ()
    except metadata.PackageNotFoundError:
        return None
    found = (pathlib.Path(file.locate()).resolve() for file in files)
    paths = (path for path in found if path.name == name and path.is_file())
    return next(paths, None)


def _compiled(onednn: pathlib.Path, header: pathlib.Path) -> pathlib.Path:
    """Compiles the source, unless the result for these versions exists (4 s)."""
    include = header.parent
    if include.name == "dnnl":  # include/oneapi/dnnl/dnnl.hpp
        include = include.parents[1]
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    command = [*compiler, "-O2", "-std=c++17", "-shared", "-fPIC", "-w"]
    command += [f"-I{include}", f"-I{jax.ffi.include_dir()}", str(_SOURCE)]
    command += [str(onednn), f"-Wl,-rpath,{onednn.parent}", "-o"]
    key = [shlex.join(command), _SOURCE.read_text()]
    key += [metadata.version(name) for name in ("jaxlib", *_PACKAGES.values())]
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    path = pathlib.Path(_CACHE).expanduser() / digest / "convolutions.so"
    if path.exists():
        return path
    if shutil.which(compiler[0]) is None:
        raise OSError(f"there is no {compiler[0]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under its name only when whole: other processes may be starting too.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = pathlib.Path(folder) / path.name
        subprocess.run(
            [*command, str(made)], check=True, capture_output=True, text=True
        )
        made.replace(path)
    return path


@contextmanager
def _threads_that_sleep() -> Iterator[None]:
    """Makes OpenMP's threads sleep after their part, where they would wait busily.

    XLA's threads need the cores then. OpenMP reads the variable when it is loaded.
    """
    name = "OMP_WAIT_POLICY"
    if name in os.environ:
        yield
        return
    os.environ[name] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[name]
