"""How time and memory grow with what is asked for, beside what mathematics asks for.

    python experiments/benchmarks/growth.py          (2 CPU cores: 11 min)
    python experiments/benchmarks/growth.py --only classes

One quantity doubles while all others stay small: image side, batch, width and classes
of a U-Net's training step; objects and regions of Mask R-CNN's; classes and objects in
evaluation; image side for losses and metrics alone. Points of an axis take turns, and
medians are compared. Memory is XLA's own account of the compiled program, the same in
every run. The exponents are slopes on logarithmic scales over the last two doublings:
2 of the image side is linear in pixels. Prints a table and writes it, with date and
hardware, into experiments/benchmarks/results/.
"""

import gc
import statistics
from collections.abc import Sequence
from typing import Any, Literal

import bench
import jax
import numpy as np
from growth_sizes import CPU, GPU
from growth_work import Axis, axes
from rich.console import Console
from rich.table import Table

FITTED = 3
"""Points that a slope is read off: the last two doublings."""
SLACK = 0.3
"""By how much an exponent may be above what is due: caches that become too small."""


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent of y over x, by least squares on logarithmic scales."""
    return float(np.polyfit(np.log(x[-FITTED:]), np.log(y[-FITTED:]), 1)[0])


def measure(axis: Axis, rounds: int, seconds: float) -> dict[str, Any]:
    """One axis.

    Args:
        axis: What grows.
        rounds: Turns of each point.
        seconds: About how long a turn is at least.

    Returns:
        JSON values: the axis, its points with median seconds and bytes, the exponents.
    """
    points = [axis.make(value) for value in axis.values]
    counts = []
    for point in points:
        point.run()
        counts.append(max(1, round(seconds / bench.seconds(point.run))))
    times: list[list[float]] = [[] for _ in points]
    for _ in range(rounds):
        for found, point, count in zip(times, points, counts, strict=True):
            found.append(bench.seconds(point.run, count))
    medians = [statistics.median(found) for found in times]
    sizes = [point.bytes for point in points]

    def exponent(due: float, y: Sequence[float]) -> dict[str, Any]:
        found = slope(axis.values, y)
        return {"expected": due, "measured": found, "worse": found > due + SLACK}

    return {
        "what": axis.what,
        "over": axis.over,
        "values": list(axis.values),
        "seconds": medians,
        "bytes": sizes,
        "exponents": {
            "time": exponent(axis.time, medians),
            "memory": exponent(axis.memory, sizes),
        },
        "points_of_the_exponents": FITTED,
        "times": times,
    }


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints the table; what grows faster than it has to is marked."""
    table = Table(title="growth as a power of what grows; ! where it is more than due")
    table.add_column("what")
    table.add_column("over")
    for name in ("from, to", "ms", "MB", "time, due", "memory, due"):
        table.add_column(name, justify="right")
    for found in results:
        ends = [(found[k][0], found[k][-1]) for k in ("values", "seconds", "bytes")]
        powers = [
            f"{'! ' if e['worse'] else ''}{e['measured']:.2f}, {e['expected']:g}"
            for e in (found["exponents"][k] for k in ("time", "memory"))
        ]
        table.add_row(
            found["what"],
            found["over"],
            f"{ends[0][0]}, {ends[0][1]}",
            f"{1e3 * ends[1][0]:.3g}, {1e3 * ends[1][1]:.3g}",
            f"{ends[2][0] / 1e6:.3g}, {ends[2][1] / 1e6:.3g}",
            *powers,
        )
    console.print(table)


def main(
    *,
    preset: Literal["cpu", "gpu"] | None = None,
    rounds: int = 7,
    seconds: float = 0.05,
    only: str = "",
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        preset: How small the other quantities are; as the device at hand is unless
            given.
        rounds: Turns of each point.
        seconds: About how long a turn is at least.
        only: Part of the name of what is measured or grows; all unless given. Then
            nothing is written without `--out`.
        output: Where results go.
    """
    bench.prepare_process()
    preset = preset or ("cpu" if jax.default_backend() == "cpu" else "gpu")
    results: list[dict[str, Any]] = []
    for axis in axes({"cpu": CPU, "gpu": GPU}[preset]):
        if only not in f"{axis.what} over {axis.over}":
            continue
        print(f"{axis.what} over {axis.over}", flush=True)
        results.append(measure(axis, rounds, seconds))
        gc.collect()  # States and programs of the last axis.
    show(results, Console())
    if only and output.out is None:
        return
    found = {"peak_bytes_of_the_run": _device_peak(), "results": results}
    output.write("growth", found)


def _device_peak() -> int | None:
    """The most memory of an accelerator so far; a CPU does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
    bench.run(main)
