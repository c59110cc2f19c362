"""Where a U-Net's time goes on a CPU: its 3x3 convolutions, one at a time.

    pip install torch==2.13.0
    python experiments/benchmarks/convolutions.py     (2 CPU cores: 20 s)

Forward, input gradient and weight gradient of each size that the U-Net of throughput.py
has, by XLA's own settings, by segjax's, and by PyTorch (channels last), in processes
that take turns. Next to the time, how many cores were at work. Prints a table and
writes it, with date and hardware, into experiments/benchmarks/results/.
"""

import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import bench
import numpy as np

BATCH = 8
LAYERS = (
    (128, 3, 16),
    (128, 16, 16),
    (128, 32, 16),
    (64, 32, 32),
    (64, 64, 32),
    (32, 64, 64),
    (32, 128, 64),
    (16, 128, 128),
    (16, 256, 128),
    (8, 256, 256),
)
"""Side, channels in, channels out."""
SYSTEMS = ("XLA", "segjax", "PyTorch")
PARTS = ("forward", "input gradient", "weight gradient")


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process is asked for.

    Attributes:
        system: XLA, by its own settings; segjax, XLA with `compiler_options`; or
            PyTorch.
    """

    system: str


def arrays(layer: tuple[int, int, int]) -> list[np.ndarray]:
    """Input [B, H, W, I], kernel [3, 3, I, O], and what comes back [B, H, W, O]."""
    side, inputs, outputs = layer
    shapes = (
        (BATCH, side, side, inputs),
        (3, 3, inputs, outputs),
        (BATCH, side, side, outputs),
    )
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def xla_works(
    layer: tuple[int, int, int], options: dict[str, str]
) -> dict[str, Callable[[], Any]]:
    """One call each, by part."""
    import jax

    from segjax import ops

    x, kernel, back = jax.device_put(arrays(layer))
    forms = {
        "forward": lambda x, kernel, back: ops.conv(x, kernel),
        "input gradient": lambda x, kernel, back: jax.vjp(
            lambda x: ops.conv(x, kernel), x
        )[1](back),
        "weight gradient": lambda x, kernel, back: jax.vjp(
            lambda kernel: ops.conv(x, kernel), kernel
        )[1](back),
    }

    def call(form):
        return lambda: jax.block_until_ready(form(x, kernel, back))

    return {
        name: call(jax.jit(form, compiler_options=options))
        for name, form in forms.items()
    }


def torch_works(layer: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
    """One call each, by part."""
    import torch

    x, kernel, back = (torch.from_numpy(a) for a in arrays(layer))
    layout = torch.channels_last
    x, back = (
        a.permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in (x, back)
    )
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=layout)

    def gradient(of_input: bool):
        wanted = [of_input, not of_input, False]
        return torch.ops.aten.convolution_backward(
            back, x, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, kernel, padding=1),
        "input gradient": functools.partial(gradient, True),
        "weight gradient": functools.partial(gradient, False),
    }


def answer() -> None:
    """A system's process: `[layer, part, calls]` is answered by seconds and cores."""
    from segjax.cli import process

    process.keep_freed_memory()
    from segjax.compiler import compiler_options

    make = {
        "XLA": functools.partial(xla_works, options={}),
        "segjax": functools.partial(xla_works, options=compiler_options()),
        "PyTorch": torch_works,
    }[Task(**json.loads(sys.argv[1])).system]
    works = [make(layer) for layer in LAYERS]
    for parts in works:
        for call in parts.values():
            call(), call()

    def reply(request: list[Any]) -> list[float]:
        layer, part, calls = request
        used = time.process_time()
        seconds = bench.seconds(works[layer][part], calls)
        return [seconds, (time.process_time() - used) / (calls * seconds)]

    bench.answer({}, reply)


def measure(rounds: int, calls: int) -> list[dict[str, Any]]:
    """By layer and part: GFLOP, and of each system median milliseconds and cores."""
    systems = [bench.Contestant(Task(name), "convolutions.py") for name in SYSTEMS]
    results = []
    try:
        for number, (side, inputs, outputs) in enumerate(LAYERS):
            for part in PARTS:
                row: dict[str, Any] = {"layer": [side, inputs, outputs], "part": part}
                row["gflop"] = 18e-9 * BATCH * side * side * inputs * outputs
                found = {s.system: [] for s in systems}
                for _ in range(rounds):
                    for s in systems:
                        found[s.system].append(s.ask([number, part, calls]))
                for name, pairs in found.items():
                    seconds, cores = zip(*pairs, strict=True)
                    row[name] = {
                        "milliseconds": 1e3 * statistics.median(seconds),
                        "cores": statistics.median(cores),
                    }
                results.append(row)
    finally:
        for s in systems:
            s.close()
    return results


def main(*, rounds: int = 7, calls: int = 5, output: bench.Output) -> None:
    """Measures, prints and writes.

    Args:
        rounds: Turns of each system, of which medians are kept.
        calls: Of one convolution in a turn.
        output: Where results go.
    """
    from rich.console import Console
    from rich.table import Table

    results = measure(rounds, calls)
    names = " / ".join(SYSTEMS)
    table = Table(
        title=f"3x3 convolutions, batch {BATCH}, float32: ms, {names} (cores)"
    )
    table.add_column("side, in, out")
    for name in PARTS:
        table.add_column(name.replace(" gradient", "\ngradient"))
    for rows in zip(*[iter(results)] * len(PARTS), strict=True):
        cells = [
            " / ".join(f"{row[name]['milliseconds']:.1f}" for name in SYSTEMS)
            + "\n("
            + " / ".join(f"{row[name]['cores']:.1f}" for name in SYSTEMS)
            + ")"
            for row in rows
        ]
        table.add_row(", ".join(map(str, rows[0]["layer"])), *cells)
    Console().print(table)
    output.write("convolutions", {"results": results})


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("{"):
        answer()
    else:
        bench.run(main)
