"""Latency of one image, from pixels in to a mask out, beside PyTorch and onnxruntime.

    pip install torch==2.13.0
    python experiments/benchmarks/latency.py
    python experiments/benchmarks/latency.py --only unet 256 --calls 200

Batch 1: what augmented reality and driving wait for. An image is uint8 [H, W, 3] in the
host's memory; the result is a label map, or objects with pasted masks, in the host's
memory. Every system is a process of its own with the same network; they take turns,
round after round. Prints the median and the 99th percentile of all calls, and writes
them, with date and hardware, into experiments/benchmarks/results/.

PyTorch runs eagerly and compiled. onnxruntime, where it and torch.onnx's packages are
installed, runs PyTorch's network. torchvision's compiled operations do not load beside
a CPU build of PyTorch: its Mask R-CNN then uses slow ones, and is marked.
"""

import dataclasses
import importlib.util
import pathlib
import sys
import tempfile
from typing import Any

import bench
import jax
import numpy as np
from latency_work import Task
from rich.console import Console
from rich.table import Table

NETWORKS = ("simple_cnn", "unet", "fcn", "mask_rcnn")
SIZES = {"cpu": (128, 256, 512), "gpu": (256, 512, 1024)}
MASK_RCNN_SIZES = {"cpu": (128,), "gpu": (512, 1024)}
"""Multiples of 32; on a CPU torchvision's slow operations allow a small one only."""


def tasks(device: str, only: tuple[str, ...]) -> list[Task]:
    """What is measured on a kind of device, as far as `only` names it."""
    pairs = [
        (network, size)
        for network in NETWORKS
        for size in (MASK_RCNN_SIZES if network == "mask_rcnn" else SIZES)[device]
    ]
    names = {x for x in only if not x.isdigit()} or set(NETWORKS)
    sizes = {int(x) for x in only if x.isdigit()} or {size for _, size in pairs}
    return [Task(network=n, size=s) for n, s in pairs if n in names and s in sizes]


def systems_of(task: Task) -> tuple[str, ...]:
    """Who takes part: onnxruntime where its packages are."""
    if task.network == "mask_rcnn":
        return ("segjax", "torch")
    packages = ("onnxruntime", "onnx", "onnxscript")
    has_onnx = all(importlib.util.find_spec(name) for name in packages)
    onnx = ("torch-onnxruntime",) if has_onnx else ()
    return ("segjax", "torch", "torch-compile", *onnx)


def measure(task: Task, rounds: int, calls: int) -> dict[str, Any]:
    """One task by all systems, in turns.

    Args:
        task: What to do.
        rounds: Turns of each.
        calls: Calls of a turn.

    Returns:
        JSON values: the task, and by system the median and 99th percentile in seconds,
        all times, and facts.
    """
    everyone: list[bench.Contestant] = []
    try:
        for system in systems_of(task):
            one = dataclasses.replace(task, system=system)
            everyone.append(bench.Contestant(one, "latency_work.py"))
        times: dict[str, list[float]] = {one.system: [] for one in everyone}
        for _ in range(rounds):
            for one in everyone:
                times[one.system] += one.ask(calls)
        return {
            "task": {"network": task.network, "size": task.size},
            "systems": {
                one.system: summary(times[one.system]) | one.facts for one in everyone
            },
        }
    finally:
        for one in everyone:
            one.close()


def summary(times: list[float]) -> dict[str, Any]:
    """Median and 99th percentile, in seconds."""
    median, slow = np.quantile(times, [0.5, 0.99]).tolist()
    return {"median": median, "percentile_99": slow, "times": times}


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Prints all tasks: milliseconds, and PyTorch eager over segjax."""
    table = Table(title="batch 1, milliseconds: median (99th percentile)")
    for name in ("network", "size", "system"):
        table.add_column(name)
    for name in ("latency", "segjax is"):
        table.add_column(name, justify="right")
    for result in results:
        ours = result["systems"]["segjax"]["median"]
        for name, found in result["systems"].items():
            mark = " (slow operations)" if found.get("slow_operations") else ""
            table.add_row(
                result["task"]["network"],
                str(result["task"]["size"]),
                name + mark,
                f"{1e3 * found['median']:.2f} ({1e3 * found['percentile_99']:.2f})",
                f"{found['median'] / ours:.2f}x",
            )
    console.print(table)


def main(
    *,
    rounds: int = 5,
    calls: int = 100,
    only: tuple[str, ...] = (),
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        rounds: Turns of each system.
        calls: Calls of a turn; Mask R-CNN takes a tenth of them.
        only: Networks and sizes to measure, such as unet 256; all unless given.
        output: Where results go.
    """
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: PyTorch is needed to compare with. pip install torch==2.13.0")
    bench.share_device_memory()
    device = "cpu" if jax.default_backend() == "cpu" else "gpu"
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(device, only):
            task = dataclasses.replace(task, folder=str(pathlib.Path(folder)))
            few = max(1, calls // 10) if task.network == "mask_rcnn" else calls
            results.append(measure(task, rounds, few))
    show(results, Console())
    output.write("latency", {"results": results})


if __name__ == "__main__":
    bench.run(main)
