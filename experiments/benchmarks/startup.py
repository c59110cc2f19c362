"""From the command to the end of the first training step, cold and warm.

    python experiments/benchmarks/startup.py

Starts `segjax train experiments/digits_unet.py` in fresh processes, once with an empty
compilation cache and then with the one it left, and stops each after its first step.
Data are prepared before. Prints seconds, and where they go.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import bench

CHILD = """
import os, sys, time
start = float(sys.argv[1])
def told(name): print("told", name, time.time() - start, flush=True)
told("interpreter")
from segjax import cli
from segjax.cli import scripts
from segjax import train
told("imports of the command")
load, after_step = scripts.load, train.Recorder.after_step
from segjax.train import run
fit = run.fit
def loaded(path, **rest):
    build = load(path, **rest)
    told("imports of the script")
    return build
def fitted(*args, **rest):
    told("run folder, checkpoints")
    return fit(*args, **rest)
def first(self, state, scalars, number):
    float(scalars["loss"])
    told("data, initialization, compilation, first step")
    os._exit(0)
scripts.load, train.Recorder.after_step, run.fit = loaded, first, fitted
cli.main(["train", *sys.argv[2:]])
"""


def seconds(experiment: pathlib.Path, cache: pathlib.Path, run: pathlib.Path):
    """One start: the time at which each part had ended, by name."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", CHILD, str(time.time()), str(experiment)]
    done = subprocess.run(
        [*command, "--run", str(run)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = (line.partition("told ") for line in done.stdout.splitlines())
    told = (what.rsplit(" ", 1) for before, _, what in lines if what and not before)
    return {name: float(at) for name, at in told}  # Training says things as well.


def main(
    *,
    experiment: pathlib.Path = bench.HERE.parent / "digits_unet.py",
    starts: int = 3,
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        experiment: A script whose data are prepared.
        starts: Warm starts; the median is reported.
        output: Where results go.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        found = [
            seconds(experiment, place / "cache", place / f"run{i}")
            for i in range(1 + starts)
        ]
    cold, *warm = found
    middle = sorted(warm, key=lambda times: max(times.values()))[len(warm) // 2]
    for name, times in (("empty cache", cold), ("warm, median", middle)):
        print(f"{name}: {max(times.values()):.1f} s to the end of the first step")
        before = 0.0
        for part, at in times.items():
            print(f"  {at - before:6.2f}  {part}")
            before = at
    found = {
        "experiment": experiment.name,
        "seconds_at_the_end_of_each_part": {"cold": cold, "warm": warm},
    }
    output.write("startup", found)


if __name__ == "__main__":
    bench.run(main)
