"""What a step does on more devices: FLOPs of each, and bytes that all of them reduce.

    python experiments/benchmarks/scaling.py
    python experiments/benchmarks/scaling.py --flops 30e12 --bandwidth 50e9

Compiles the train step of a U-Net for 1, 2, 4 and 8 CPU devices, with as many images
on each, runs nothing, and reads the compiled programs: FLOPs a device from XLA's own
cost analysis, bytes from the shapes of the `all-reduce` operations in its text. From
these and from what the user says of the hardware follows what to expect:

    compute = FLOPs / flops        communication = 2 (n - 1) / n * bytes / bandwidth
    efficiency = compute / (compute + communication)

2 (n - 1) / n is what a ring sends of each byte; nothing is taken to overlap, so that
real runs may do better. CPU devices share a machine: only counts are read off them.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import dataclasses
import math
import re

import bench
import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax import losses, models, train

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
REDUCTION = re.compile(r"= (?P<shapes>.+?) all-reduce(?:-start)?\(")
ARRAY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<sides>[\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one device does in a step.

    Attributes:
        devices: Of the mesh.
        flops: Of each device.
        reduced: Bytes that each device brings to all-reduces.
        operations: All-reduces.
    """

    devices: int
    flops: float
    reduced: int
    operations: int

    def efficiency(self, flops: float, bandwidth: float) -> float:
        """In (0, 1]: the share of a step that is compute, nothing overlapping.

        Args:
            flops: That a device does a second.
            bandwidth: Bytes a second, of a device's slowest link, in one direction.
        """
        compute = self.flops / flops
        sent = 2 * (self.devices - 1) / self.devices * self.reduced
        return compute / (compute + sent / bandwidth)


def reduced_bytes(text: str) -> list[int]:
    """Bytes of each all-reduce in a compiled program's text, of one device."""
    return [
        sum(
            SIZES[array["dtype"]] * math.prod(map(int, array["sides"].split(",")))
            if array["sides"]
            else SIZES[array["dtype"]]
            for array in ARRAY.finditer(found["shapes"])
        )
        for found in REDUCTION.finditer(text)
    ]


def cost(
    devices: int, *, images: int, size: int, widths: tuple[int, ...], norm
) -> Cost:
    """Compiles the step over some devices, and reads it.

    Args:
        devices: Of the mesh.
        images: A device.
        size: Height and width, in pixels.
        widths: Of the U-Net.
        norm: Of the U-Net.
    """
    model = models.UNet(num_classes=11, widths=widths, norm=norm)
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = train.abstract_state(model, optimizer, image_shape=(size, size, 3))
    rows, pixels = devices * images, (size, size)
    batch = {
        "image": jax.ShapeDtypeStruct((rows, *pixels, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((rows, *pixels), np.int32),
        "valid": jax.ShapeDtypeStruct((rows, *pixels), bool),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
        "index": jax.ShapeDtypeStruct((rows,), jnp.int32),
    }
    objective = losses.semantic(ce=(1.0, losses.cross_entropy))
    step = train.make_train_step(train.make_forward(model), objective, optimizer)
    mesh = train.make_mesh(jax.devices()[:devices])
    compiled = train.jit_step(step, mesh).lower(state, batch).compile()
    analysis = compiled.cost_analysis()
    found = reduced_bytes(compiled.as_text())
    return Cost(devices, analysis["flops"], sum(found), len(found))


def main(
    *,
    images: int = 4,
    size: int = 128,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    flops: float = 30e12,
    bandwidth: float = 25e9,
) -> None:
    """Prints one table a norm.

    Args:
        images: A device.
        size: Height and width, in pixels.
        widths: Of the U-Net, finest first.
        flops: What a device does a second on this network; a third of its data
            sheet is a fair guess.
        bandwidth: Bytes a second and direction of the slowest link between devices.
    """
    norms = {"group": models.layers.group_norm, "batch": models.layers.batch_norm}
    for name, norm in norms.items():
        print(f"U-Net {widths}, {name} norm, {images} images of {size}x{size} a device")
        print(
            f"{'devices':>8}{'GFLOP':>9}{'MB reduced':>12}{'all-reduces':>13}", end=""
        )
        print(f"{'efficiency':>12}")
        for devices in (1, 2, 4, 8):
            one = cost(devices, images=images, size=size, widths=widths, norm=norm)
            share = one.efficiency(flops, bandwidth)
            print(
                f"{devices:>8}{one.flops / 1e9:>9.2f}{one.reduced / 1e6:>12.3f}"
                f"{one.operations:>13}{share:>12.1%}",
                flush=True,
            )


if __name__ == "__main__":
    bench.run(main)
