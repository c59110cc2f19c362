"""Images a second of the input pipeline alone, by data set and reader.

    python experiments/benchmarks/pipeline.py --dsb2018 DIR --camvid DIR

For `digits`, and for the other two where their folder is given: batches as the data
set's experiment reads them, first decoded anew each time, in threads and by two reader
processes, then out of the cache of decoded examples. What a step needs is a matter of
the device: compare with the images/s that throughput.py or a run's metrics.jsonl show.
"""

import contextlib
import dataclasses
import pathlib
import time
from typing import Any

import bench
import jax
from rich.console import Console
from rich.table import Table

from segjax import data, memory


def images_a_second(
    pipeline: data.Pipeline, *, batch_size: int, seconds: float, warm: int
) -> float:
    """Reads batches for a while, after `warm` batches that do not count."""
    with contextlib.closing(
        pipeline.train_batches(batch_size=batch_size, seed=0)
    ) as batches:
        for _ in range(warm):
            next(batches)
        start, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - start) < seconds:
            next(batches)
            count += 1
    return count * batch_size / taken


def measure(
    pipeline: data.Pipeline, batch_size: int, seconds: float
) -> dict[str, float]:
    """Images/s by reader.

    Returns:
        `decoding, threads`; `decoding, 2 processes`; `cached`, once an epoch has filled
        the cache (reader processes keep none).
    """
    epoch = -(-pipeline.num_examples("train") // batch_size)

    def reader(warm: int, **change: Any) -> float:
        changed = dataclasses.replace(pipeline, **change)
        return images_a_second(
            changed, batch_size=batch_size, seconds=seconds, warm=warm
        )

    return {
        "decoding, threads": reader(8, cache_bytes=0),
        "decoding, 2 processes": reader(8, cache_bytes=0, num_workers=2),
        "cached": reader(epoch + 8, cache_bytes=2**33),
    }


def main(
    *,
    dsb2018: pathlib.Path | None = None,
    camvid: pathlib.Path | None = None,
    seconds: float = 5.0,
    output: bench.Output,
) -> None:
    """Measures, prints and writes.

    Args:
        dsb2018: Source of the nuclei; left out unless given.
        camvid: Source of the streets; left out unless given.
        seconds: Of reading, for each number.
        output: Where results go.
    """
    cases = {"digits, 32x32": (data.Pipeline(dataset=data.digits()), 16)}
    if dsb2018:
        nuclei = data.Pipeline(dataset=data.dsb2018(dsb2018), size=160)
        cases["dsb2018, 160x160"] = (nuclei, 6)
        objects = dataclasses.replace(nuclei, size=256, max_objects=160)
        cases["dsb2018, 256x256, 160 objects"] = (objects, 8)
    if camvid:
        streets = data.Pipeline(dataset=data.camvid(camvid), size=(360, 480))
        cases["camvid, 360x480"] = (streets, 8)
    found = {name: measure(*case, seconds) for name, case in cases.items()}
    table = Table("data", title="images/s of the pipeline alone")
    for name in next(iter(found.values())):
        table.add_column(name, justify="right")
    for name, row in found.items():
        table.add_row(name, *(f"{x:,.0f}" for x in row.values()))
    Console().print(table)
    output.write("pipeline", {"images_a_second": found})


if __name__ == "__main__":
    memory.keep_freed_memory()  # As `segjax train` does.
    jax.config.update("jax_platforms", "cpu")  # Only the host works here.
    bench.run(main)
