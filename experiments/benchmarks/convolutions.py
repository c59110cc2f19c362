"""Convolutions on a CPU, one at a time: a U-Net's 3x3, EfficientNet-Lite0's depthwise.

    pip install torch==2.13.0 "segjax[onednn]"
    python experiments/benchmarks/convolutions.py     (2 CPU cores: 1 min)

Forward, input gradient and weight gradient of each size that the U-Net of throughput.py
has, and of the depthwise layers of EfficientNet-Lite0 at 352x352: by XLA's own settings
(not depthwise, where it takes a second), by segjax without and with oneDNN, and by
PyTorch (channels last), in processes that take turns. Next to the time, how many cores
were at work. Prints a table and writes it, with date and hardware, into
experiments/benchmarks/results/.
"""

import dataclasses
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import bench
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with SAME padding.

    Attributes:
        side: Of the input.
        inputs: Channels.
        outputs: Channels.
        size: Side of the kernel.
        stride: Pixels between outputs.
        depthwise: Whether each channel has its own kernel.
        batch: Images.
    """

    side: int
    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1
    depthwise: bool = False
    batch: int = 8


def depthwise(side: int, channels: int, size: int, stride: int) -> Layer:
    """A layer of EfficientNet-Lite0."""
    return Layer(side, channels, channels, size, stride, True, 4)


LAYERS = (
    Layer(128, 3, 16),
    Layer(128, 16, 16),
    Layer(128, 32, 16),
    Layer(64, 32, 32),
    Layer(64, 64, 32),
    Layer(32, 64, 64),
    Layer(32, 128, 64),
    Layer(16, 128, 128),
    Layer(16, 256, 128),
    Layer(8, 256, 256),
    depthwise(176, 32, 3, 1),
    depthwise(176, 96, 3, 2),
    depthwise(88, 144, 5, 2),
    depthwise(44, 240, 5, 1),
    depthwise(22, 480, 3, 1),
    depthwise(22, 672, 5, 1),
    depthwise(11, 1152, 5, 1),
)
SYSTEMS = ("XLA", "segjax", "oneDNN", "PyTorch")
PARTS = ("forward", "input gradient", "weight gradient")


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process is asked for.

    Attributes:
        system: XLA, by its own settings; segjax, without the extra `onednn`; oneDNN, by
            segjax with it; or PyTorch.
    """

    system: str


def arrays(layer: Layer) -> list[np.ndarray]:
    """Input [B, H, W, I], kernel [K, K, I or 1, O], and what comes back."""
    after = -(-layer.side // layer.stride)
    shapes = (
        (layer.batch, layer.side, layer.side, layer.inputs),
        (layer.size, layer.size, 1 if layer.depthwise else layer.inputs, layer.outputs),
        (layer.batch, after, after, layer.outputs),
    )
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def jax_works(system: str, layer: Layer) -> dict[str, Callable[[], Any]]:
    """One call each, by part."""
    import jax

    from segjax import ops
    from segjax.compiler import compiler_options
    from segjax.ops.convolution import conv_by_xla

    x, kernel, back = jax.device_put(arrays(layer))
    form = ops.depthwise_conv if layer.depthwise else ops.conv
    conv = functools.partial(
        conv_by_xla if system == "XLA" else form, strides=layer.stride
    )
    options = {} if system == "XLA" else compiler_options()

    def input_gradient(x, kernel, back):
        return jax.vjp(lambda x: conv(x, kernel), x)[1](back)

    def weight_gradient(x, kernel, back):
        return jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](back)

    def call(function):
        compiled = jax.jit(function, compiler_options=options)
        return lambda: jax.block_until_ready(compiled(x, kernel, back))

    parts = (lambda x, kernel, back: conv(x, kernel), input_gradient, weight_gradient)
    return dict(zip(PARTS, map(call, parts), strict=True))


def torch_works(layer: Layer) -> dict[str, Callable[[], Any]]:
    """One call each, by part."""
    import torch

    x, kernel, back = (torch.from_numpy(a) for a in arrays(layer))
    layout = torch.channels_last
    # What SAME padding has more of on one side is part of the input.
    total = max((back.shape[1] - 1) * layer.stride + layer.size - layer.side, 0)
    before, after = total // 2, total - total // 2
    extra = (0, 0, 0, after - before, 0, after - before)
    x = torch.nn.functional.pad(x, extra)
    x, back = (
        a.permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in (x, back)
    )
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=layout)
    stride, pad = [layer.stride] * 2, [before] * 2
    groups = layer.inputs if layer.depthwise else 1

    def gradient(of_input: bool):
        wanted = [of_input, not of_input, False]
        return torch.ops.aten.convolution_backward(
            *(back, x, kernel, None, stride, pad, [1, 1], False, [0, 0], groups, wanted)
        )

    def forward():
        with torch.no_grad():
            return torch.nn.functional.conv2d(x, kernel, None, stride, pad, 1, groups)

    calls = (forward, functools.partial(gradient, True))
    return dict(zip(PARTS, (*calls, functools.partial(gradient, False)), strict=True))


def answer() -> None:
    """A system's process: `[layer, part, calls]` is answered by seconds and cores."""
    system = Task(**json.loads(sys.argv[1])).system
    if system != "oneDNN":
        os.environ["SEGJAX_ONEDNN"] = "0"
    from segjax import memory, onednn

    memory.keep_freed_memory()
    if system == "oneDNN" and onednn.version() is None:
        sys.exit('oneDNN is not there. pip install "segjax[onednn]".')
    if system == "PyTorch":
        make = torch_works
    else:
        make = functools.partial(jax_works, system)
    works = [make(layer) for layer in LAYERS if measures(system, layer)]
    for parts in works:
        for call in parts.values():
            call(), call()

    def reply(request: list[Any]) -> list[float]:
        layer, part, calls = request
        used = time.process_time()
        seconds = bench.seconds(works[layer][part], calls)
        return [seconds, (time.process_time() - used) / (calls * seconds)]

    bench.answer({}, reply)


def measures(system: str, layer: Layer) -> bool:
    """Whether a system measures a layer."""
    return system != "XLA" or not layer.depthwise


def measure(rounds: int, calls: int) -> list[dict[str, Any]]:
    """By layer and part: GFLOP, and of each system median milliseconds and cores."""
    systems = [bench.Contestant(Task(name), "convolutions.py") for name in SYSTEMS]
    results = []
    try:
        for number, layer in enumerate(LAYERS):
            at_work = [s for s in systems if measures(s.system, layer)]
            for part in PARTS:
                row: dict[str, Any] = {"layer": dataclasses.asdict(layer), "part": part}
                _, kernel, back = arrays(layer)
                row["gflop"] = 2e-9 * back[..., 0].size * kernel.size
                found = {s.system: [] for s in at_work}
                for _ in range(rounds):
                    for s in at_work:
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


def lines(results: list[dict[str, Any]]) -> list[list[str]]:
    """Of each layer: its name, and by part milliseconds and cores of the systems."""
    found = []
    for rows in zip(*[iter(results)] * len(PARTS), strict=True):
        layer = Layer(**rows[0]["layer"])
        name = f"{layer.side}, {layer.inputs}, {layer.outputs}"
        if layer.depthwise:
            name = f"{layer.side}, {layer.inputs}, {layer.size}, {layer.stride}"
        line = [name]
        for key, digits in (("milliseconds", 1), ("cores", 1)):
            for row in rows:
                shown = (row[s][key] for s in SYSTEMS if s in row)
                line.append(" / ".join(f"{value:.{digits}f}" for value in shown))
        found.append(line)
    return found


def main(*, rounds: int = 7, calls: int = 5, output: bench.Output) -> None:
    """Measures, prints and writes.

    Args:
        rounds: Turns of each system, of which medians are kept.
        calls: Of one convolution in a turn.
        output: Where results go.
    """
    results = measure(rounds, calls)
    print(f"ms: {' / '.join(SYSTEMS)}; depthwise without {SYSTEMS[0]}\n")
    heads = ["side, in, out; or side, channels, kernel, stride", *PARTS]
    heads += [f"cores, {part}" for part in PARTS]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for line in lines(results):
        print("| " + " | ".join(line) + " |")
    output.write("convolutions", {"results": results})


if __name__ == "__main__":
    answer() if len(sys.argv) > 1 and sys.argv[1].startswith("{") else bench.run(main)
