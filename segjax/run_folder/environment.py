"""The environment of a run: code, versions, devices and numeric settings."""

import hashlib
import os
import pathlib
import platform
import subprocess
from importlib import metadata
from typing import Any

import jax

from segjax import onednn
from segjax.compiler import compiler_options, cores

_PACKAGES = (
    "segjax jax jaxlib flax optax chex orbax-checkpoint grain array-record "
    "tensorflow-datasets numpy scipy pillow scikit-image"
)
_JAX_OPTIONS = (
    "jax_enable_x64 jax_default_matmul_precision jax_default_prng_impl "
    "jax_threefry_partitionable jax_random_seed_offset"
)
"""JAX settings that change numeric results."""
_PACKAGE = pathlib.Path(__file__).parents[1]


def run_environment() -> dict[str, Any]:
    """Returns what may change rounding without a change of code, as JSON values."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "cpu": _cpu(),
        "cores": cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": compiler_options(),
        "onednn": onednn.version(),
        "jax": {name: getattr(jax.config, name) for name in _jax_options()},
    }


def code_digests(script: pathlib.Path | None) -> dict[str, Any]:
    """Returns digests of segjax and of the script, and the script's Git commit.

    Args:
        script: The file that defines the experiment; None for none, and the commit
            of the working folder.
    """
    package = hashlib.sha256()
    for path in sorted([*_PACKAGE.rglob("*.py"), *_PACKAGE.rglob("*.cc")]):
        package.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
        package.update(path.read_bytes() + b"\0")
    return {
        **_git(pathlib.Path.cwd() if script is None else script.parent),
        "segjax": package.hexdigest()[:16],
        "script": None if script is None else file_digest(script),
    }


def file_digest(path: pathlib.Path) -> str | None:
    """Returns 16 digits of a file's SHA-256; None if there is no such file."""
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _jax_options() -> list[str]:
    """The settings that this version of JAX has."""
    return [name for name in _JAX_OPTIONS.split() if hasattr(jax.config, name)]


def _cpu() -> str:
    """The name of the processor, from /proc on Linux."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(": ", 1)[1] for x in lines if x.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES.split():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git(folder: pathlib.Path) -> dict[str, Any]:
    """Commit and dirty state of the checkout at a folder; empty outside one."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
