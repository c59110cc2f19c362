"""Four CPU devices, strict promotion, a shared compilation cache."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What every machine has; tests/onednn/ and tests that ask for it turn it on.
os.environ.setdefault("SEGJAX_ONEDNN", "0")
# Most of the tests' time is compilation, of small programs mostly: keep them all.
_CACHE = os.path.expanduser("~/.cache/segjax/jax")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import importlib.util
import pathlib
import sys

import jax
import jaxtyping
import numpy as np
import pytest

_MOST_MEMORY = 2 * 2**30
SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    # Half of an entry, while another process writes it: JAX says so and compiles.
    message = "Error reading persistent compilation cache entry"
    config.addinivalue_line("filterwarnings", f"ignore:{message}:UserWarning")


@pytest.fixture(autouse=True, scope="module")
def _memory():
    """Drops compiled programs once they take gigabytes: a process took 8 GB."""
    yield
    from segjax.memory import trim_memory  # Not before its shapes are checked.

    if _resident_bytes() > _MOST_MEMORY:
        jax.clear_caches()
        trim_memory()


def _resident_bytes():
    """Memory of this process; 0 where the system does not tell."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def _parity(request):
    """Tests marked `parity` need PyTorch: they fail without it in CI, never skip."""
    if request.node.get_closest_marker("parity") and not os.environ.get("CI"):
        if importlib.util.find_spec("torch") is None:
            pytest.skip("needs what `make test PARITY=1` installs")


@pytest.fixture
def without(monkeypatch):
    """Makes a package look as if it were not installed."""

    def block(package):
        for name in list(sys.modules):
            if name.partition(".")[0] == package:
                monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, package, None)

    return block


@pytest.fixture
def untyped():
    """Calls are as users make them: annotations are not checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets, where the machine has one."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
