"""A training step under three settings of the allocator: time and page faults.

    python experiments/benchmarks/heap.py                 (2 CPU cores: 2 min)
    taskset -c 0 python experiments/benchmarks/heap.py    (1 core)

The U-Net of throughput.py, in a process for each setting, which take turns; medians.
`segjax train` uses the last (`segjax.memory`).
"""

import dataclasses
import json
import resource
import statistics
import sys

import bench
from contestants import Task
from rich.console import Console
from rich.table import Table

SETTINGS = ("glibc's defaults", "freed memory kept", "and large pages")
UNET = Task("", "unet", "train", 8, 128, 8, (16, 32, 64, 128, 256), "float32")


def contestant(task: Task) -> None:
    """Makes the settings of one system, and answers requests for steps."""
    from contestants_jax import segjax_run

    from segjax import memory
    from segjax.cli import process

    process.run_one_program_at_a_time()
    if task.system != SETTINGS[0]:
        memory.keep_freed_memory()
    if task.system == SETTINGS[2]:
        memory.use_large_pages()
    run, facts = segjax_run(task)
    run(3)

    def reply(steps: int) -> list[float]:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = bench.seconds(lambda: run(steps))
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        peak = bench.peak_bytes("segjax") or 0
        return [1e3 * seconds / steps, faults / steps, peak / 1e6]

    bench.answer(facts, reply)


def main(*, rounds: int = 7, steps: int = 8, output: bench.Output) -> None:
    """Measures, prints and writes.

    Args:
        rounds: Turns of each setting.
        steps: Steps of a turn.
        output: Where results go.
    """
    tasks = [dataclasses.replace(UNET, system=setting) for setting in SETTINGS]
    contestants = [bench.Contestant(task, "heap.py") for task in tasks]
    turns = [[one.ask(steps) for one in contestants] for _ in range(rounds)]
    for one in contestants:
        one.close()
    table = Table("setting", "ms a step", "of the first", "page faults", "peak MB")
    results: dict[str, dict[str, float]] = {}
    for setting, found in zip(SETTINGS, zip(*turns, strict=True), strict=True):
        ms, faults, peak = map(statistics.median, zip(*found, strict=True))
        results[setting] = {"ms": ms, "page_faults": faults, "peak_mb": peak}
        ratio = ms / results[SETTINGS[0]]["ms"]
        table.add_row(
            setting, f"{ms:.0f}", f"{ratio:.2f}", f"{faults:.0f}", f"{peak:.0f}"
        )
    Console().print(table)
    output.write("heap", {"results": results, "turns": turns})


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("{"):
        task = json.loads(sys.argv[1])
        contestant(Task(**task | {"widths": tuple(task["widths"])}))
    else:
        bench.run(main)
