import subprocess
import sys

import numpy as np

from tests.data import sources

HIDE = """
import importlib.machinery
import importlib.util
import sys

usual = importlib.machinery.PathFinder.find_spec

def as_if_not_installed(name, path=None, target=None):
    if name.partition(".")[0] != "tensorflow":
        return usual(name, path, target)

importlib.machinery.PathFinder.find_spec = as_if_not_installed
assert importlib.util.find_spec("tensorflow") is None
"""
PROGRAM = f"""{HIDE}
from segjax import data
from segjax.data.builders import digits

digits.SCENES = {{"train": 4, "validation": 2, "test": 2}}
for prepared in (data.digits(), data.folder(sys.argv[1])):
    for split, examples in prepared.splits.items():
        for example in examples:
            assert example["image"].ndim == 3, example
        print(prepared.name, split, len(examples))
assert "tensorflow" not in sys.modules
"""


def test_prepares_and_reads_without_tensorflow(tmp_path, rng, monkeypatch):
    monkeypatch.setenv("SEGJAX_DATA_DIR", str(tmp_path / "prepared"))
    pixels = {f"images/{i}.png": sources.png(sources.image(rng)) for i in range(4)}
    mask = sources.png(rng.integers(0, 3, (8, 12)).astype(np.uint8))
    source = sources.write(
        tmp_path / "mine", pixels | {f"masks/{i}.png": mask for i in range(4)}
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [
        "digits train 4",
        "digits validation 2",
        "digits test 2",
        "folder train 2",
        "folder validation 1",
        "folder test 1",
    ]
