"""Wall time of several seeds at once beside as many runs one after another.

    python experiments/benchmarks/seeds.py --steps 100

Each command is a process of its own, from its start to its report, compilation
included: `segjax seeds` with an empty compilation cache; one `segjax train` a seed,
each with an empty cache; and all but the first of these again with the first one's, as
they are where nothing else is asked for. Prints the ratios and how far measured are
apart, and writes them into experiments/benchmarks/results/.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import bench

from segjax import data


def main(
    *,
    steps: int = 100,
    seeds: tuple[int, ...] = (0, 1, 2, 3),
    experiment: pathlib.Path = bench.HERE.parent / "digits_unet.py",
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        steps: Updates of each run; the default of the experiment is a whole training.
        seeds: Of the runs.
        experiment: A script of experiments/.
        output: Where results go.
    """
    data.digits()  # Prepared before anything is timed.
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(pathlib.Path(folder), experiment, steps)
        numbers = [str(seed) for seed in seeds]
        together = commands.seconds(
            "seeds", "--seeds", *numbers, name="all", cache="all"
        )
        alone = [
            commands.seconds("train", "--seed", n, name=n, cache=f"own {n}")
            for n in numbers
        ]
        shared = (
            alone[:1]
            + [  # The first one found its cache empty in any case.
                commands.seconds(
                    "train", "--seed", n, name=f"{n} again", cache=f"own {seeds[0]}"
                )
                for n in numbers[1:]
            ]
        )
        apart = max(commands.apart(f"all/seed-{n}", n) for n in numbers)
    result = {
        "experiment": experiment.name,
        "steps": steps,
        "seeds": list(seeds),
        "ratio": together / sum(alone),
        "ratio_where_the_runs_share_a_cache": together / sum(shared),
        "seconds": {
            "together": together,
            "alone": alone,
            "alone_sharing_a_cache": shared,
        },
        "largest_difference_of_a_figure": apart,
    }
    print(f"{steps} steps of {experiment.name}, {len(seeds)} seeds; compiling included")
    print(f"at once / one after another: {result['ratio']:.2f}")
    print(f"the same where those share a cache: {together / sum(shared):.2f}")
    print(f"largest difference of a figure on the test split: {apart:.2g}")
    output.write("seeds", result)


class Commands:
    """Commands in a folder, timed."""

    def __init__(self, folder: pathlib.Path, experiment: pathlib.Path, steps: int):
        """Runs and caches go into the folder."""
        self.folder, self.experiment, self.steps = folder, experiment, steps

    def seconds(self, subcommand: str, *flags: str, name: str, cache: str) -> float:
        """Wall time of `segjax SUBCOMMAND` in a fresh process."""
        command = [
            sys.executable,
            "-m",
            "segjax.cli.main",
            subcommand,
            str(self.experiment),
        ]
        command += [
            "--steps",
            str(self.steps),
            "--run",
            str(self.folder / name),
            *flags,
        ]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / f"cache {cache}")
        }
        print(f"{subcommand} {' '.join(flags)}", flush=True)
        return bench.seconds(
            lambda: subprocess.run(
                command, env=environment, check=True, stdout=subprocess.DEVNULL
            )
        )

    def apart(self, one: str, other: str) -> float:
        """The largest difference of a figure of two runs."""
        a, b = (self._metrics_of(name) for name in (one, other))
        return max(abs(a[k] - b[k]) for k in a if a[k] is not None)

    def _metrics_of(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name / "result.json").read_text())["metrics"]


if __name__ == "__main__":
    bench.run(main)
