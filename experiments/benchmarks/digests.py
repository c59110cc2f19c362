"""What the digests in the train step cost: `digits_unet.py`, with and without them.

    python experiments/benchmarks/digests.py --updates 0
    python experiments/benchmarks/digests.py --updates 5 --rows 1

The first updates of a run digest gradient and parameters too, later ones do not.
Prints the ratio of the median processor times of a step and of one whose digests are
constants, which take turns. Processor time, of all threads, depends less than the
clock on what else the machine does.
"""

import contextlib
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import tyro

from segjax import ops, train
from segjax.cli import process, scripts
from segjax.train import loop


@contextlib.contextmanager
def without_digests() -> Iterator[None]:
    """Steps that are traced meanwhile digest nothing."""
    real = ops.digest
    ops.digest = lambda tree: jnp.zeros((), jnp.uint32)
    try:
        yield
    finally:
        ops.digest = real


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, by all threads."""
    began = time.process_time()
    jax.block_until_ready(work())
    return time.process_time() - began


def main(repeats: int = 150, updates: int = 5, rows: int = 16) -> None:
    """Measures.

    Args:
        repeats: Steps of each kind.
        updates: How many were made before each.
        rows: Images in a batch.
    """
    process.keep_freed_memory()
    script = pathlib.Path(__file__).parents[1] / "digits_unet.py"
    made = scripts.load(script)()
    with contextlib.closing(loop.host_batches(made, 0)) as host:
        batch = jax.tree.map(lambda x: jnp.asarray(x[:rows]), next(host))
    state = train.init_state(
        made.model, made.optimizer, seed=0, image_shape=batch["image"].shape[1:]
    )
    state = dataclasses.replace(state, step=jnp.int32(updates))

    step = loop.step_of(made)
    work = {"with": jax.jit(step).lower(state, batch).compile()}
    with without_digests():
        # Another function, or JAX would find the one above among its traces.
        plain = jax.jit(lambda state, batch: step(state, batch))
        work["without"] = plain.lower(state, batch).compile()
    times: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(repeats + 5):
        for name in sorted(work, reverse=bool(turn % 2)):
            times[name].append(seconds(lambda name=name: work[name](state, batch)))
    medians = {k: statistics.median(v[5:]) for k, v in times.items()}
    print(f"step with digests / without: {medians['with'] / medians['without']:.4f}")


if __name__ == "__main__":
    tyro.cli(main)
