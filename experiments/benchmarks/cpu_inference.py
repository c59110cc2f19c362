"""Inference on a CPU as it is, fused, and on parts of a batch one after another.

    python experiments/benchmarks/cpu_inference.py                 (2 cores: 1 min)
    taskset -c 0 python experiments/benchmarks/cpu_inference.py    (1 core)

Programs take turns; milliseconds are medians. `*` marks what segjax does
(`segjax.cpu_inference`).
"""

import statistics

import bench
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from segjax import cpu_inference, models, onednn, train
from segjax.compiler import compiler_options, cores

BATCH = 8
UNET = models.UNet(8, (16, 32, 64, 128, 256), norm=models.layers.batch_norm)
FCN = models.FCN(
    8, widths=(32, 64, 128, 256, 256), convs=(2, 2, 3, 3, 3), head_width=2048
)
TASKS = {
    "U-Net": (UNET, 128),
    "U-Net, 256x256": (UNET, 256),
    "U-Net, EfficientNet-Lite0, 256x256": (
        models.UNet(11, encoder=models.encoders.efficientnet_lite0()),
        256,
    ),
    "FCN-8s": (FCN, 128),
}


def programs(model, side: int):
    """Variables, images, programs by (images of a part, fused), and segjax's part."""
    shape = (BATCH, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.float32)[:1])
    forward = train.make_forward(model)

    def infer(variables, images):
        return forward(variables, {"image": images})[0]

    def infer_fused(variables, images):
        program = jax.make_jaxpr(infer, return_shape=True)(variables, images)
        looped = len(images) < BATCH
        return onednn.fused(*program, looped=looped)(variables, images)

    def compiled(images_of_a_part, is_fused):
        one = infer_fused if is_fused else infer

        def run(variables, images):
            parts = images.reshape(-1, images_of_a_part, *images.shape[1:])
            return jax.lax.map(lambda part: one(variables, part), parts)

        function = one if images_of_a_part == BATCH else run
        lowered = jax.jit(function).lower(variables, images)
        return lowered.compile(compiler_options=compiler_options())

    choices = ((8, False), (8, True), (4, True), (2, True), (1, True))
    made = {choice: compiled(*choice) for choice in choices}
    rows = cpu_inference.rows_of_a_part(variables, {"image": images})
    return variables, images, made, rows or BATCH


def measure(model, side: int, rounds: int) -> list[dict]:
    """Median milliseconds and temporary MB of each program."""
    variables, images, made, chosen = programs(model, side)
    seconds = {choice: [] for choice in made}
    for _ in range(rounds + 1):
        for choice, program in made.items():

            def run(program=program):
                jax.block_until_ready(program(variables, images))

            seconds[choice] += [bench.seconds(run) for _ in range(3)]
    return [
        {
            "images": count,
            "fused": is_fused,
            "chosen": count == chosen and is_fused,
            "ms": 1e3 * statistics.median(seconds[count, is_fused][3:]),
            "mb": program.memory_analysis().temp_size_in_bytes / 1e6,
        }
        for (count, is_fused), program in made.items()
    ]


def main(*, rounds: int = 10, output: bench.Output) -> None:
    """Measures, prints and writes.

    Args:
        rounds: Turns of each program.
        output: Where results go.
    """
    table = Table(title=f"{BATCH} images, {cores()} cores, oneDNN {onednn.version()}")
    table.add_column("network: ms (MB)")
    table.add_column("as it is", justify="right")
    for count in (8, 4, 2, 1):
        table.add_column(f"fused, {count} at a time", justify="right")
    results = {}
    for name, (model, side) in TASKS.items():
        found = results[name] = measure(model, side, rounds)
        cells = (f"{r['ms']:.0f} ({r['mb']:.0f}){'*' * r['chosen']}" for r in found)
        table.add_row(name, *cells)
    Console().print(table)
    output.write("cpu_inference", {"results": results})


if __name__ == "__main__":
    bench.run(main)
