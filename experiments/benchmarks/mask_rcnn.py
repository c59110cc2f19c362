"""Mask R-CNN beside torchvision's: training steps, inference, NMS and ROIAlign.

    pip install -r third_party/requirements.txt
    python experiments/benchmarks/mask_rcnn.py                (2 CPU cores)
    python experiments/benchmarks/mask_rcnn.py --preset gpu   (one GPU)

Both systems are processes of their own with the same random weights, images and
precision; they take turns, and medians are compared. Compile time is apart; memory is
the peak. Prints a table and writes it, with date and hardware, into
experiments/benchmarks/results/.

With random weights few proposals meet an object, and torchvision computes masks for
those alone, ours for a fixed number: the table says how many. Beside a PyTorch for
CPUs torchvision's own operations do not load (third_party/torchvision_cpu.py), and what
stands in for them is so slow that the ratios say little about torchvision.
"""

import dataclasses
import importlib.util
import pathlib
import statistics
import sys
import tempfile
from typing import Any, Literal

import bench
import jax
from mask_rcnn_work import Task, cpu_tasks, gpu_tasks
from rich.console import Console
from rich.table import Table

SYSTEMS = ("segjax", "torchvision")
PUBLISHED = (
    "For reference only: torchvision's Mask R-CNN is published with 13 images/s in "
    "training, on a V100 in half precision."
)
CAVEAT = (
    "torchvision's compiled operations do not load beside this PyTorch: its NMS was a "
    "loop in Python and its ROIAlign plain PyTorch. These ratios say little about "
    "torchvision."
)


def measure(task: Task, rounds: int, seconds: float) -> dict[str, Any]:
    """One task by both systems, in turns.

    Args:
        task: What to do.
        rounds: Turns of each.
        seconds: About how long a turn is.

    Returns:
        JSON values: the task; by system its facts and measured; by name of what was
        run, the seconds of all turns, and `compare`'s summary.
    """
    both: list[bench.Contestant] = []
    try:
        for system in SYSTEMS:
            named = dataclasses.replace(task, system=system)
            both.append(bench.Contestant(named, f"mask_rcnn_{system}.py"))
        runs = {}
        for name in both[0].facts["runs"]:
            times: dict[str, list[float]] = {one.system: [] for one in both}
            counts = [max(1, round(seconds / one.ask([name, 1]))) for one in both]
            for _ in range(rounds):
                for one, steps in zip(both, counts, strict=True):
                    times[one.system].append(one.ask([name, steps]))
            runs[name] = {**compare(times), "seconds": times}
        left_out = ("system", "weights")
        return {
            "task": {
                k: v for k, v in dataclasses.asdict(task).items() if k not in left_out
            },
            "systems": {one.system: {**one.facts, **one.ask("end")} for one in both},
            "runs": runs,
        }
    finally:
        for one in both:
            one.close()


def compare(times: dict[str, list[float]]) -> dict[str, Any]:
    """How many times as fast segjax is.

    Args:
        times: Seconds of each turn, by system; both have as many.

    Returns:
        `ratio` of torchvision's median to ours, and `ratios`, turn by turn.
    """
    ours, theirs = (times[system] for system in SYSTEMS)
    return {
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "ratios": [b / a for a, b in zip(ours, theirs, strict=True)],
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Prints one task."""
    task = result["task"]
    alone = task["mode"] == "operations"
    size = f"{task['height']}x{task['width']}"
    title = f"NMS by boxes, and ROIAlign of {size} at a stride of 4, float32"
    if not alone:
        title = (
            f"{task['body']}-FPN, {task['mode']}: batch {task['batch']}, {size}, "
            f"{task['proposals']} proposals, {task['dtype']}"
        )
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    unit = "runs/s" if alone else "images/s"
    for name in (f"segjax {unit}", "torchvision", "segjax is", "turn by turn"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, run in result["runs"].items():
        images = 1 if alone else task["batch"]
        speeds = (images / statistics.median(run["seconds"][s]) for s in SYSTEMS)
        low, high = min(run["ratios"]), max(run["ratios"])
        table.add_row(
            name,
            *(f"{speed:.4g}" for speed in speeds),
            f"{run['ratio']:.3g}x",
            f"{low:.3g} to {high:.3g}",
        )
    console.print(table)
    for system in SYSTEMS:
        found = result["systems"][system]
        console.print(f"  {system}: {_details(found)}", highlight=False, soft_wrap=True)


def _details(found: dict[str, Any]) -> str:
    """What else a system told, in a line."""
    measured = found["measured"]
    parts = [f"{name} {x:.5g}" for name, x in measured.items() if len(measured) < 5]
    if found["peak_bytes"]:
        parts.append(f"memory {found['peak_bytes'] / 1e9:.2f} GB")
    if "compile_seconds" in found:
        parts.append(f"compile or first step {found['compile_seconds']:.1f} s")
    return ", ".join(parts)


def main(
    *,
    preset: Literal["cpu", "gpu"] | None = None,
    batch: int | None = None,
    rounds: int = 3,
    seconds: float = 2.0,
    only: tuple[str, ...] = (),
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        preset: The tasks; those of the device at hand unless given.
        batch: Images of a step; 1 on a CPU and 8 on a GPU unless given.
        rounds: Turns of each system.
        seconds: About how long a turn is.
        only: Bodies and modes to measure, such as resnet50 train; all unless given.
        output: Where results go.
    """
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        sys.exit(
            "error: torchvision is needed to compare with. "
            "pip install -r third_party/requirements.txt"
        )
    bench.share_device_memory()
    on_cpu = jax.default_backend() == "cpu"
    preset = preset or ("cpu" if on_cpu else "gpu")
    tasks = cpu_tasks(batch or 1) if preset == "cpu" else gpu_tasks(batch or 8)
    console = Console()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            if not set(only) <= {task.body, task.mode}:
                continue
            weights = save_weights(task, pathlib.Path(folder))
            task = dataclasses.replace(task, weights=str(weights))
            results.append(measure(task, rounds, seconds))
            show(results[-1], console)
    theirs = [result["systems"]["torchvision"] for result in results]
    remarks = [] if all(x["compiled_operations"] for x in theirs) else [CAVEAT]
    remarks += [PUBLISHED] if preset == "gpu" else []
    for remark in remarks:
        console.print(remark)
    output.write("mask_rcnn", {"remarks": remarks, "results": results})


def save_weights(task: Task, folder: pathlib.Path) -> pathlib.Path:
    """The file with weights for a task's body, written unless it is there."""
    import torchvision_network

    path = folder / f"{task.body}.npz"
    if not path.exists():
        torchvision_network.save_weights(task, path)
    return path


if __name__ == "__main__":
    bench.run(main)
