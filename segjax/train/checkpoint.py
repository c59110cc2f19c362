"""Checkpoints of a run: the best and the last state, in Orbax's format."""

import contextlib
import logging
import math
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from segjax.train.state import TrainState
from segjax.typing import PyTree

_STATE = "state"


class Checkpoints:
    """The states kept in one folder. Use as a context manager, or call `close`.

    Writing is atomic: a folder named by its step appears when it is whole.
    """

    def __init__(self, folder: pathlib.Path, *, monitor: str):
        """Opens the folder, which is made at the first save.

        Args:
            folder: `RUN/checkpoints`.
            monitor: The figure by which `best` is picked; higher is better.
        """
        policies: Any = ocp.training.preservation_policies
        self._monitor = monitor
        self._folder = folder
        with _quiet():
            self._orbax = ocp.training.Checkpointer(
                str(folder.absolute()),
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(1), policies.BestN(get_metric_fn=_score, n=1)]
                ),
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Waits for writing to end."""
        self._orbax.close()

    def save(self, state: TrainState, figures: Mapping[str, float]) -> None:
        """Keeps a state under its step; a step that is kept already is left alone.

        Args:
            state: The state, on the device.
            figures: Of the evaluation at this step; without the monitored one the
                state is never the best unless it is alone.
        """
        step = int(state.step)
        if step in self.steps:
            return
        score = figures.get(self._monitor, math.nan)
        metrics: dict[str, Any] = {"score": score if math.isfinite(score) else -1e30}
        with _quiet():
            self._orbax.save_checkpointables(step, {_STATE: state}, metrics=metrics)

    @property
    def steps(self) -> list[int]:
        """Steps kept, ascending."""
        return sorted(c.step for c in self._orbax.checkpoints)

    @property
    def best(self) -> int | None:
        """The step with the highest monitored figure; the later one of equals."""
        kept = self._orbax.checkpoints
        if not kept:
            return None
        return max(kept, key=lambda c: (_score(c.metrics), c.step)).step

    @property
    def last(self) -> int | None:
        """The latest step."""
        return self.steps[-1] if self.steps else None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Loads a state.

        Args:
            step: One of `steps`.
            like: A state of the same experiment: its structure, shapes, dtypes and
                shardings are those of the result. Shapes alone will do.

        Raises:
            ValueError: If the checkpoint holds another model or optimizer; the
                message names the first difference.
        """
        self._check_same(step, like)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        template = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=x.sharding or here
            ),
            like,
        )
        with _quiet():
            return self._orbax.load_checkpointables(step, {_STATE: template})[_STATE]

    def _check_same(self, step: int, like: TrainState) -> None:
        with _quiet():
            stored = self._orbax.checkpointables_metadata(step).metadata[_STATE]
        there, here = _leaves(stored), _leaves(like)
        # Parameters first: they name what differs best.
        for name in sorted(there.keys() | here.keys(), key=lambda n: (n[0] != "p", n)):
            if there.get(name) != here.get(name):
                raise ValueError(
                    f"{self._folder / str(step)} is a checkpoint of another model or "
                    f"optimizer: {name} needs {here.get(name, 'nothing')}, the "
                    f"checkpoint has {there.get(name, 'nothing')}. Use the flags that "
                    f"the run was started with, or another --run."
                )


def _score(metrics) -> float:
    return (metrics or {}).get("score", -1e30)


def _leaves(tree: PyTree) -> dict[str, str]:
    """Leaf names, as Orbax writes them, to dtype and shape."""
    result = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = "/".join(jax.tree_util.keystr((k,), simple=True) for k in path)
        if getattr(leaf, "shape", None) is None:
            continue
        if name == "key":  # Orbax stores the numbers behind a typed key.
            result[name] = "key"
        else:
            result[name] = f"{leaf.dtype}{list(leaf.shape)}"
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's housekeeping out of the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
