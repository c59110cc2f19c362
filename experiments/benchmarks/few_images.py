"""Inference on a whole batch and on parts of it, one after another, on a CPU.

    python experiments/benchmarks/few_images.py                    (2 cores: 1 min)
    taskset -c 0 python experiments/benchmarks/few_images.py       (1 core)

Programs take turns; milliseconds are medians. `*` marks the size of the parts that
segjax chooses (`segjax.few_images`).
"""

import statistics

import bench
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from segjax import few_images, models, onednn, train
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
    """Variables, images, and by images of a part the program, and segjax's choice."""
    shape = (BATCH, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.float32)[:1])
    forward = train.make_forward(model)

    def compiled(images_of_a_part):
        def infer(variables, images):
            parts = images.reshape(-1, images_of_a_part, *images.shape[1:])
            return jax.lax.map(lambda x: forward(variables, {"image": x})[0], parts)

        def whole(variables, images):
            return forward(variables, {"image": images})[0]

        function = whole if images_of_a_part == BATCH else infer
        lowered = jax.jit(function).lower(variables, images)
        return lowered.compile(compiler_options=compiler_options())

    made = {count: compiled(count) for count in (8, 4, 2, 1)}
    rows = few_images.rows_of_a_part(variables, {"image": images})
    return variables, images, made, rows or BATCH


def measure(model, side: int, rounds: int) -> dict:
    """Median milliseconds and temporary MB by images of a part."""
    variables, images, made, chosen = programs(model, side)
    seconds = {count: [] for count in made}
    for _ in range(rounds + 1):
        for count, program in made.items():

            def run(program=program):
                jax.block_until_ready(program(variables, images))

            seconds[count] += [bench.seconds(run) for _ in range(3)]
    return {
        "chosen": chosen,
        "ms": {n: 1e3 * statistics.median(s[3:]) for n, s in seconds.items()},
        "mb": {
            n: program.memory_analysis().temp_size_in_bytes / 1e6
            for n, program in made.items()
        },
    }


def main(*, rounds: int = 10, output: bench.Output) -> None:
    """Measures, prints and writes.

    Args:
        rounds: Turns of each program.
        output: Where results go.
    """
    table = Table(title=f"{BATCH} images, {cores()} cores, oneDNN {onednn.version()}")
    table.add_column("network")
    for count in (8, 4, 2, 1):
        table.add_column(f"{count} at a time: ms (MB)", justify="right")
    results = {}
    for name, (model, side) in TASKS.items():
        found = results[name] = measure(model, side, rounds)
        cells = (
            f"{ms:.0f} ({found['mb'][count]:.0f}){'*' * (count == found['chosen'])}"
            for count, ms in found["ms"].items()
        )
        table.add_row(name, *cells)
    Console().print(table)
    output.write("few_images", {"results": results})


if __name__ == "__main__":
    bench.run(main)
