"""The first hour with one's own photographs: train and predict, timed.

    python experiments/benchmarks/first_hour.py --minutes 10

Writes 20 synthetic photographs of 1296x966 pixels with masks (`fields.py`), in which a
crop has about 1.5 % of the pixels, and 2 more. Then it runs, in an empty folder,

    segjax train --data fields --run mine --minutes 10
    segjax predict mine new --out predictions

and prints what the commands print, their times, and the IoU of the predictions.
"""

import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import fields
import numpy as np
import tyro
from PIL import Image


def run(*args: str, folder: pathlib.Path) -> None:
    """Runs a subcommand of segjax, and prints it with its time."""
    print(f"$ segjax {' '.join(args)}", flush=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "segjax", *args]
    subprocess.run(command, cwd=folder, check=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime
    wall = time.perf_counter() - began
    print(f"# {wall:.0f} s; so far {cpu:.0f} s of CPU time\n", flush=True)


def scores(truth: pathlib.Path, predicted: pathlib.Path) -> list[float]:
    """Returns the IoU of each class over all masks of a folder."""
    hits, unions = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for path in sorted(truth.glob("*.png")):
        one, two = (np.asarray(Image.open(x / path.name)) for x in (truth, predicted))
        for k in range(3):
            hits[k] += ((one == k) & (two == k)).sum()
            unions[k] += ((one == k) | (two == k)).sum()
    return (hits / unions).tolist()


def main(*, minutes: float = 10.0, folder: pathlib.Path | None = None) -> None:
    """Writes the photographs, trains, predicts and compares.

    Args:
        minutes: The time for training.
        folder: Where to write; a temporary folder unless given.
    """
    folder = pathlib.Path(tempfile.mkdtemp()) if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    fields.write_fields(folder / "fields")
    fields.write_fields(folder / "new", 2, seed=1)
    source = str(pathlib.Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = f"{source}:{os.environ.get('PYTHONPATH', '')}"
    run("train", "--data", "fields", "--run", "mine", "--minutes", f"{minutes:g}",
        folder=folder)  # fmt: skip
    run("predict", "mine", "new/images", "--out", "predictions", folder=folder)
    found = scores(folder / "new/masks", folder / "predictions")
    for name, value in zip(("soil", "weed", "crop"), found, strict=True):
        print(f"{name}: IoU {value:.3f} in two new photographs")
    print(f"All files are in {folder}.")


if __name__ == "__main__":
    tyro.cli(main)
