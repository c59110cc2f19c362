"""Repeats the first updates of a run without writing a file, for `segjax verify`."""

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import jax

from segjax.train import sharding
from segjax.train.experiment import Experiment
from segjax.train.loop import fit
from segjax.train.metric_writer import NullWriter
from segjax.train.recorder import Recorder
from segjax.train.reproducibility import DigestRecorder, batch_digest
from segjax.train.state import TrainState
from segjax.typing import Array, Batch


class _NullRecorder(Recorder):
    """A recorder that keeps only digests."""

    def __init__(self, experiment: Experiment, steps: int):
        self.config, self.log, self.stop_reason = experiment.config, NullWriter(), None
        self.digests = DigestRecorder(steps=steps)

    def restore(self, state: TrainState, first: int) -> TrainState:
        self.digests.state(state)
        return state

    def after_step(self, state, metrics: Mapping[str, Array], number) -> None:
        self.digests.rows([jax.device_get(metrics)])

    def note_images(self, batch: Batch) -> None: ...

    def begin(self, state: TrainState) -> None: ...

    def check_evaluation(self, state: TrainState) -> None: ...

    def finish_evaluation(self, state: TrainState, first: int) -> None: ...

    def is_due(self, number: int) -> bool:
        return False


def replay(experiment: Experiment, *, steps: int, processes: int = 1) -> dict[str, Any]:
    """Computes the first updates as `train` does, and returns their digests.

    Args:
        experiment: The experiment of the run, built again.
        steps: The number of updates, at least 1.
        processes: The number of processes of the run. The digests of its batches are
            those of the first process.

    Returns:
        As `DigestRecorder.found`.
    """
    config = experiment.config
    sharding.check_divides(
        config.batch_size, sharding.make_mesh().size, micro_batches=config.accumulate
    )
    recorder = _NullRecorder(experiment, steps)
    fit([experiment], [recorder], first=0, last=steps, stop=lambda: None)
    digests = recorder.digests.found
    if (jax.process_count(), jax.process_index()) != (processes, 0):
        digests |= {"data": _data_of_first(experiment, steps, processes)}
    return digests


def _data_of_first(experiment: Experiment, steps: int, processes: int) -> list[str]:
    """Digests of the batches that the first of several processes reads."""
    config = experiment.config
    share = experiment.data.train_batches(
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=0,
        process_count=processes,
    )
    with contextlib.closing(share):
        return [batch_digest(batch) for batch in itertools.islice(share, steps)]
