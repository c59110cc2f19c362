"""The first hour with one's own photographs: train and predict, timed.

    python experiments/benchmarks/first_hour.py --minutes 10
    python experiments/benchmarks/first_hour.py --large

Writes 20 synthetic photographs of 1296x966 pixels with masks (`fields.py`), in which a
crop has about 1.5 % of the pixels, and 2 more. Then it runs, in an empty folder,

    segjax train --data fields --run mine --minutes 10
    segjax predict mine new --out predictions

and prints what the commands print, their times and memory, and the IoU of the
predictions. With `--large`, the photographs have 20 megapixels (5472x3648), of which
14 are trained on for 40 updates, and the run is evaluated too: for the memory.
"""

import os
import pathlib
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
    # A child of its own for each command, so that the peak is its own.
    child = subprocess.Popen(command, cwd=folder)
    _, status, spent = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"segjax {args[0]} ended with status {status}.")
    cpu = spent.ru_utime + spent.ru_stime
    wall = time.perf_counter() - began
    peak = spent.ru_maxrss * 1024 / 1e9
    print(f"# {wall:.0f} s, {cpu:.0f} s of CPU time, {peak:.2f} GB\n", flush=True)


def scores(truth: pathlib.Path, predicted: pathlib.Path) -> list[float]:
    """Returns the IoU of each class over all masks of a folder."""
    hits, unions = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for path in sorted(truth.glob("*.png")):
        one, two = (np.asarray(Image.open(x / path.name)) for x in (truth, predicted))
        for k in range(3):
            hits[k] += ((one == k) & (two == k)).sum()
            unions[k] += ((one == k) | (two == k)).sum()
    return (hits / unions).tolist()


def main(
    *,
    minutes: float = 10.0,
    large: bool = False,
    folder: pathlib.Path | None = None,
) -> None:
    """Writes the photographs, trains, predicts and compares.

    Args:
        minutes: The time for training.
        large: Photographs of 20 megapixels, and few updates.
        folder: Where to write; a temporary folder unless given.
    """
    folder = pathlib.Path(tempfile.mkdtemp()) if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    size = {"height": 3648, "width": 5472, "scale": 4.0} if large else {}
    fields.write_fields(folder / "fields", 14 if large else 20, **size)
    fields.write_fields(folder / "new", 2, seed=1, **size)
    source = str(pathlib.Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = f"{source}:{os.environ.get('PYTHONPATH', '')}"
    length = ("--steps", "40") if large else ("--minutes", f"{minutes:g}")
    run("train", "--data", "fields", "--run", "mine", *length, folder=folder)
    if large:
        run("evaluate", "mine", folder=folder)
    run("predict", "mine", "new/images", "--out", "predictions", folder=folder)
    found = scores(folder / "new/masks", folder / "predictions")
    for name, value in zip(("soil", "weed", "crop"), found, strict=True):
        print(f"{name}: IoU {value:.3f} in two new photographs")
    print(f"All files are in {folder}.")


if __name__ == "__main__":
    tyro.cli(main)
