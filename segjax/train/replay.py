"""The first updates of a run, made again without writing anything."""

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import jax

from segjax.train import parallel
from segjax.train.config import Experiment
from segjax.train.digests import DigestRecorder, batch_digest
from segjax.train.log import NullWriter
from segjax.train.loop import fit
from segjax.train.record import Recorder
from segjax.train.state import TrainState
from segjax.typing import Array, Batch


class _Silent(Recorder):
    """A recorder of updates that leave nothing behind but their digests."""

    def __init__(self, experiment: Experiment, steps: int):
        self.config, self.log, self.stop_reason = experiment.config, NullWriter(), None
        self.first_steps = DigestRecorder(steps=steps)

    def start(self, state: TrainState, first: int) -> TrainState:
        self.first_steps.state(state)
        return state

    def step_done(self, state, metrics: Mapping[str, Array], number) -> None:
        self.first_steps.rows([jax.device_get(metrics)])

    def saw(self, batch: Batch) -> None: ...

    def begin(self, state: TrainState, first: int) -> None: ...

    def check_monitor(self, state: TrainState) -> None: ...

    def go_on(self, state: TrainState, first: int) -> None: ...

    def due(self, number: int) -> bool:
        return False


def replay(experiment: Experiment, *, steps: int, processes: int = 1) -> dict[str, Any]:
    """Makes the first updates as `train` does, and returns their digests.

    Args:
        experiment: What the run trained, built again.
        steps: Updates to make; at least 1.
        processes: Processes that the run had. Its batches' digests are those of what
            the first of them read.

    Returns:
        What `DigestRecorder.found` describes.
    """
    config = experiment.config
    parallel.check_divides(
        config.batch_size, parallel.make_mesh().size, micro_batches=config.accumulate
    )
    silent = _Silent(experiment, steps)
    fit([experiment], [silent], first=0, last=steps, stop=lambda: None)
    digests = silent.first_steps.found
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
