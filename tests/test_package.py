"""A wheel built from this checkout works outside it."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.cli.conftest import SCRIPT, write_scenes

ROOT = pathlib.Path(__file__).parents[1]


def python(*args, cwd, site=None):
    """Runs Python elsewhere; with `site` first on its path."""
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_trains_outside_the_checkout(tmp_path, data_dir_env):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    flags = ("--no-deps", "--no-build-isolation")
    python(*pip, "wheel", *flags, "--wheel-dir", tmp_path / "dist", ROOT, cwd=elsewhere)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    python(*pip, "install", "--no-deps", "--target", site, wheel, cwd=elsewhere)
    where = python(
        "-c", "import segjax; print(segjax.__file__)", cwd=elsewhere, site=site
    )
    assert pathlib.Path(where.strip()).is_relative_to(site)
    assert (site / "segjax/onednn/convolutions.cc").is_file()

    (elsewhere / "scenes.py").write_text(SCRIPT)
    write_scenes(elsewhere / "scenes", 12)
    segjax = ("-m", "segjax.cli.main")
    flags = ("--source", "scenes", "--steps", "2", "--batch-size", "2", "--run", "run")
    python(*segjax, "train", "scenes.py", *flags, cwd=elsewhere, site=site)
    assert (elsewhere / "run/report.html").stat().st_size > 10_000


@pytest.fixture
def data_dir_env(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(tmp_path / "prepared"))
