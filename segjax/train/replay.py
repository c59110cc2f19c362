"""The first updates of a run, made again without writing anything."""

import contextlib
import itertools
from typing import Any

import jax

from segjax.train import parallel
from segjax.train.config import Experiment
from segjax.train.digests import FirstSteps, batch_digest
from segjax.train.loop import host_batches, step_of
from segjax.train.state import init_state


def replay(experiment: Experiment, *, steps: int, processes: int = 1) -> dict[str, Any]:
    """Makes the first updates as `train` does, and returns their digests.

    Args:
        experiment: What the run trained, built again.
        steps: Updates to make; at least 1.
        processes: Processes that the run had. Its batches' digests are those of what
            the first of them read.

    Returns:
        What `FirstSteps.found` describes.
    """
    found = FirstSteps(steps=steps)
    mesh = parallel.make_mesh()
    config = experiment.config
    parallel.check_divides(
        config.batch_size, mesh.size, micro_batches=config.accumulate
    )
    with contextlib.closing(host_batches(experiment, 0)) as host:
        batches = parallel.to_devices(found.batches(host), mesh)
        first = next(batches)
        state = init_state(
            experiment.model,
            experiment.optimizer,
            seed=config.seed,
            image_shape=first["image"].shape[1:],
            start=experiment.start,
        )
        found.state(state)
        state = jax.device_put(state, parallel.replicated(mesh))
        lowered = parallel.jit_step(step_of(experiment), mesh).lower(state, first)
        found.program(lowered)
        step = lowered.compile()
        for batch in itertools.islice(itertools.chain([first], batches), steps):
            state, scalars = step(state, batch)
            found.rows([jax.device_get(scalars)])
    digests = found.found
    if (jax.process_count(), jax.process_index()) != (processes, 0):
        digests |= {"data": _first_share(experiment, steps, processes)}
    return digests


def _first_share(experiment: Experiment, steps: int, processes: int) -> list[str]:
    """Digests of what the first of some processes reads."""
    config = experiment.config
    share = experiment.data.train_batches(
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=0,
        process_count=processes,
    )
    with contextlib.closing(share):
        return [batch_digest(batch) for batch in itertools.islice(share, steps)]
