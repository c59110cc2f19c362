"""A run on one device whose convolutions oneDNN computes, and one that resumes it."""

import json
import os
import subprocess
import sys

import pytest

from tests.cli.conftest import SCRIPT, write_scenes
from tests.onednn.machine import NEEDED

pytestmark = [pytest.mark.slow, NEEDED]


def segjax(*args, **environment):
    """The command in a new process, on one device, with oneDNN unless turned off."""
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "segjax", *map(str, args)],
        env={**env, "SEGJAX_ONEDNN": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of 10 updates, in one go and in two."""
    folder = tmp_path_factory.mktemp("onednn")
    (folder / "scenes.py").write_text(SCRIPT)
    write_scenes(folder / "scenes")
    train = ("train", folder / "scenes.py", "--source", folder / "scenes")
    for args in (
        (*train, "--steps", "10", "--run", folder / "whole"),
        (*train, "--steps", "5", "--run", folder / "parts"),
        (*train, "--steps", "10", "--run", folder / "parts", "--resume"),
    ):
        done = segjax(*args)
        assert done.returncode == 0, done.stderr
    return folder


def result(run):
    """Metrics of the end."""
    return json.loads((run / "result.json").read_text())["metrics"]


def test_recorded_and_resumed_exactly(trained):
    manifest = json.loads((trained / "whole/run.json").read_text())
    assert manifest["onednn"].startswith("20")
    assert result(trained / "parts") == result(trained / "whole")


def test_verified(trained):
    same = segjax("verify", trained / "whole")
    assert same.returncode == 0, same.stderr
    assert "differs" not in same.stdout
    other = segjax("verify", trained / "whole", SEGJAX_ONEDNN="0")
    assert "onednn: 20" in other.stdout + other.stderr


def test_predicts_and_exports(trained):
    image = trained / "scenes/images/00.png"
    for name, switch in (("with", ""), ("without", "0")):
        done = segjax(
            *("predict", trained / "whole", image, "--out", trained / name),
            SEGJAX_ONEDNN=switch,
        )
        assert done.returncode == 0, done.stderr
    made = [(trained / name / "00.png").read_bytes() for name in ("with", "without")]
    assert made[0] == made[1]
    done = segjax("export", trained / "whole", "--out", trained / "model.segjax")
    assert done.returncode == 0, done.stderr
