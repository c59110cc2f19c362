"""One system on one task, as a process that runs steps when told to.

    python experiments/benchmarks/contestants.py '{"system": "segjax", ...}'

Started by throughput.py, which asks how long a number of steps takes, for the peak of
memory, and for what the machine can do at best.
"""

import dataclasses
import json
import sys
import time
from typing import Any

import bench
import numpy as np
from bench import Run


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        system: segjax, plain (Flax), torch, or torch-compile.
        network: unet, paper_unet, fcn, or efficientnet_unet.
        mode: train or infer.
        batch: Images.
        size: Side of an image in pixels.
        classes: C.
        widths: Channels by scale.
        dtype: float32 or bfloat16.
    """

    system: str
    network: str
    mode: str
    batch: int
    size: int
    classes: int
    widths: tuple[int, ...]
    dtype: str

    @property
    def convs(self) -> tuple[int, ...]:
        """VGG-16's, for the FCN."""
        return (2, 2, 3, 3, 3)

    @property
    def head_width(self) -> int:
        """4096 in the paper, eight times the widest stage."""
        return 8 * self.widths[-1]

    def images(self) -> np.ndarray:
        """uint8 [B, H, W, 3]."""
        shape = (self.batch, self.size, self.size, 3)
        return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)

    def labels(self) -> np.ndarray:
        """int32 [B, H, W]."""
        shape = (self.batch, self.size, self.size)
        return (
            np.random.default_rng(1).integers(0, self.classes, shape).astype(np.int32)
        )


def ceilings(dtype: str) -> dict[str, float]:
    """What the machine can do at best, by JAX: a large matrix product, and a copy.

    Returns:
        `flops`: per second, of a square product in this dtype; `bytes`: per
        second read and written, of a copy of a large array.
    """
    import jax
    import jax.numpy as jnp

    gpu = jax.default_backend() != "cpu"
    side, length = (16_384, 2**30) if gpu else (2_048, 2**26)
    a = jnp.ones((side, side), dtype)
    x = jnp.ones(length // 4, jnp.float32)
    product = jax.jit(lambda a: a @ a)
    copy = jax.jit(lambda x: x + 1)
    found = {}
    for name, work, argument, amount in (
        ("flops", product, a, 2 * side**3),
        ("bytes", copy, x, 2 * length),
    ):
        jax.block_until_ready(work(argument))

        def call(work=work, argument=argument) -> None:
            jax.block_until_ready(work(argument))

        found[name] = amount / min(bench.seconds(call) for _ in range(5))
    return found


def _run_of(task: Task) -> tuple[Run, dict[str, Any]]:
    # Only here: a system shares its process with no other.
    if task.system in ("segjax", "plain"):
        import contestants_jax

        make = {
            "segjax": contestants_jax.segjax_run,
            "plain": contestants_jax.plain_run,
        }
        return make[task.system](task)
    import contestants_torch

    return contestants_torch.torch_run(task)


def main() -> None:
    """Builds what the first argument says, then answers requests until they end."""
    from segjax import memory

    bench.prepare_process()
    task = Task(**json.loads(sys.argv[1]))
    task = dataclasses.replace(task, widths=tuple(task.widths))
    run, facts = _run_of(task)
    memory.trim_memory()
    run(2)
    bench.forget_peak()

    def reply(request: Any) -> Any:
        if request == "ceilings":
            return ceilings(task.dtype)
        if request == "peak":
            return bench.peak_bytes(task.system)
        used = time.process_time()
        seconds = bench.seconds(lambda: run(request))
        return [seconds / request, (time.process_time() - used) / seconds]

    bench.answer(facts, reply)


if __name__ == "__main__":
    main()
