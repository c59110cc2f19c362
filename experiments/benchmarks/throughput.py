"""Training steps and inference beside PyTorch and the obvious Flax, in one run.

    pip install torch==2.13.0
    python experiments/benchmarks/throughput.py                (2 CPU cores: 8 min)
    python experiments/benchmarks/throughput.py --preset gpu   (one GPU: under 8 min)
    pip install segmentation-models-pytorch==0.6.0
    python experiments/benchmarks/throughput.py --preset encoder        (CPU: 4 min)

Every system is a process of its own with the same network, batch and precision; they
take turns, round after round, and medians are compared, so that a busy machine slows
all alike. Compile time is apart; memory is the peak while steps run. Prints a table and
writes it, with date and hardware, into experiments/benchmarks/results/.
"""

import dataclasses
import importlib.util
import statistics
import sys
import time
from typing import Any, Literal

import bench
import jax
from contestants import Task
from rich.console import Console
from rich.table import Table

SYSTEMS = {
    "cpu": ("segjax", "plain", "torch"),
    "gpu": ("segjax", "plain", "torch", "torch-compile"),
    "encoder": ("segjax", "torch"),  # That is segmentation_models.pytorch.
}
UNET, FCN = (16, 32, 64, 128, 256), (32, 64, 128, 256, 256)
PRESETS = {
    "cpu": [
        Task("", "unet", mode, 8, 128, 8, UNET, "float32")
        for mode in ("train", "infer")
    ]
    + [Task("", "fcn", mode, 8, 128, 8, FCN, "float32") for mode in ("train", "infer")],
    "gpu": [
        Task("", "unet", mode, 16, 512, 8, (64, 128, 256, 512, 1024), "bfloat16")
        for mode in ("train", "infer")
    ]
    + [
        Task("", "fcn", mode, 16, 512, 8, (64, 128, 256, 512, 512), "bfloat16")
        for mode in ("train", "infer")
    ]
    + [
        Task(
            "", "paper_unet", "train", 8, 572, 2, (64, 128, 256, 512, 1024), "bfloat16"
        )
    ],
    "encoder": [
        Task("", "efficientnet_unet", mode, 8, 256, 11, UNET, "float32")
        for mode in ("train", "infer")
    ],
}


def measure(task: Task, systems: tuple[str, ...], rounds: int, seconds: float) -> dict:
    """One task by all systems, in turns.

    Args:
        task: What to do.
        systems: Who does it.
        rounds: Turns of each.
        seconds: About how long a turn is.

    Returns:
        JSON values: the task, the ceilings, and by system the median seconds a step,
        images/s, all times, compile time, peak memory, FLOP/s.
    """
    all_of_them = [
        bench.Contestant(dataclasses.replace(task, system=s), "contestants.py")
        for s in systems
    ]
    times: dict[str, list[list[float]]] = {s: [] for s in systems}
    try:
        counts = {c.system: max(1, round(seconds / c.ask(1)[0])) for c in all_of_them}
        for _ in range(rounds):
            for one in all_of_them:
                times[one.system].append(one.ask(counts[one.system]))
        peaks = {c.system: c.ask("peak") for c in all_of_them}  # Ceilings take memory.
        ceilings: dict[str, float] = {}
        for _ in range(rounds):  # The best of several seconds: others may be at work.
            found = all_of_them[0].ask("ceilings")
            ceilings = {k: max(v, ceilings.get(k, 0.0)) for k, v in found.items()}
            time.sleep(1)
        flops = next(c.facts["flops"] for c in all_of_them if c.facts["flops"])
        return {
            "task": {
                k: v for k, v in dataclasses.asdict(task).items() if k != "system"
            },
            "flops_of_a_step": flops,
            "ceilings": ceilings,
            "systems": {
                c.system: _summary(times[c.system], task, flops)
                | {"compile_seconds": c.facts["compile_seconds"]}
                | {"peak_bytes": peaks[c.system]}
                for c in all_of_them
            },
        }
    finally:
        for one in all_of_them:
            one.close()


def _summary(turns: list[list[float]], task: Task, flops: float) -> dict[str, Any]:
    times, cores = ([turn[i] for turn in turns] for i in range(2))
    median = statistics.median(times)
    return {
        "seconds_a_step": median,
        "images_a_second": task.batch / median,
        "flops_a_second": flops / median,
        "cores": statistics.median(cores),
        "times": times,
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Prints one task."""
    task = result["task"]
    table = Table(
        title=f"{task['network']}, {task['mode']}: batch {task['batch']}, "
        f"{task['size']}x{task['size']}, {task['dtype']}"
    )
    table.add_column("system")
    for name in (
        "images/s",
        "segjax is",
        "of ceiling",
        "cores",
        "memory GB",
        "compile s",
    ):
        table.add_column(name, justify="right")
    ours = result["systems"]["segjax"]["images_a_second"]
    for name, found in result["systems"].items():
        peak = found["peak_bytes"]
        table.add_row(
            name,
            f"{found['images_a_second']:.1f}",
            f"{ours / found['images_a_second']:.2f}x",
            f"{found['flops_a_second'] / result['ceilings']['flops']:.0%}",
            f"{found['cores']:.2f}",
            f"{peak / 1e9:.2f}" if peak else "",
            f"{found['compile_seconds']:.1f}",
        )
    console.print(table)


def main(
    *,
    preset: Literal["cpu", "gpu", "encoder"] | None = None,
    rounds: int = 5,
    seconds: float = 3.0,
    only: tuple[str, ...] = (),
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        preset: The tasks; those of the device at hand unless given. encoder: a U-Net
            with EfficientNet-Lite0, beside segmentation_models.pytorch.
        rounds: Turns of each system.
        seconds: About how long a turn is.
        only: Networks and modes to measure, such as unet train; all unless given.
        output: Where results go.
    """
    if importlib.util.find_spec("torch") is None:
        sys.exit("error: PyTorch is needed to compare with. pip install torch==2.13.0")
    bench.share_device_memory()
    preset = preset or ("cpu" if jax.default_backend() == "cpu" else "gpu")
    systems = SYSTEMS[preset]
    tasks = [t for t in PRESETS[preset] if set(only) <= {t.network, t.mode}]
    console = Console()
    results = []
    for task in tasks:
        results.append(measure(task, systems, rounds, seconds))
        show(results[-1], console)
    name = "encoders" if preset == "encoder" else "throughput"
    output.write(name, {"results": results})


if __name__ == "__main__":
    bench.run(main)
