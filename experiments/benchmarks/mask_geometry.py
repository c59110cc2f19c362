"""What masks of 28x28 can reach at most: the truth, cut out and pasted back.

    python experiments/benchmarks/mask_geometry.py --dsb2018 DIR

A perfect network is scored: its boxes are the true ones, and its masks are what the
mask head learns to predict, `ops.crop_masks` of the true masks. What is lost is lost by
geometry: not `aligned`, as torchvision cuts and pastes, outlines move by up to a pixel.
Average precision of nuclei ends below 1 in either case, since it counts no more than
100 detections an image.
"""

import functools
import pathlib

import bench
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from segjax import data, metrics, models, ops
from segjax.typing import Batch

CELLS = 28
SHOWN = (
    "mask_ap",
    "mask_ap50",
    "mask_ap75",
    "dsb2018_score@0.50",
    "dsb2018_score@0.75",
)


@functools.partial(jax.jit, static_argnames="aligned")
def perfect(batch: Batch, *, aligned: bool) -> models.Detections:
    """The objects of a batch as detections, all of them sure."""
    cut = functools.partial(ops.crop_masks, size=CELLS, aligned=aligned)
    index = jnp.arange(batch["boxes"].shape[1], dtype=jnp.int32)
    return models.Detections(
        boxes=batch["boxes"],
        scores=jnp.where(batch["object_mask"], 1.0, 0.0),
        classes=batch["classes"],
        masks=jax.vmap(lambda masks, boxes: cut(masks, index, boxes))(
            batch["masks"], batch["boxes"]
        ),
        object_mask=batch["object_mask"],
        size=batch["size"],
        aligned=aligned,
    )


def ceiling(pipeline: data.Pipeline, *, aligned: bool) -> dict[str, float]:
    """Figures of the perfect network on the test split."""
    metric = metrics.detections(pipeline.classes)
    parts = [
        metric(jax.device_get(perfect(batch, aligned=aligned)), batch)
        for batch in pipeline.eval_batches("test", batch_size=4)
    ]
    measured = functools.reduce(lambda a, b: a.merge(b), parts).compute()
    return {name: measured[name] for name in SHOWN}


def main(*, dsb2018: pathlib.Path | None = None, output: bench.Output) -> None:
    """Measures, prints and writes.

    Args:
        dsb2018: Source of the nuclei; left out unless given.
        output: Where results go.
    """
    pipelines = {"digits": data.Pipeline(dataset=data.digits(), max_objects=16)}
    if dsb2018 is not None:
        pipelines["dsb2018"] = data.Pipeline(
            dataset=data.dsb2018(dsb2018), size=128, max_objects=384
        )
    table = Table("data", "masks", *(k.replace("dsb2018_", "") for k in SHOWN))
    found = {}
    for name, pipeline in pipelines.items():
        for aligned in (False, True):
            kind = "aligned" if aligned else "as torchvision"
            measured = ceiling(pipeline, aligned=aligned)
            found[f"{name}, {kind}"] = measured
            table.add_row(name, kind, *(f"{measured[k]:.3f}" for k in SHOWN))
    Console().print(table)
    output.write("mask_geometry", {"ceilings": found})


if __name__ == "__main__":
    bench.run(main)
