"""Evaluation: metrics per batch on the device, merged on the host."""

import collections
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from segjax import multihost, ops
from segjax.compiler import compiler_options
from segjax.cpu_inference import faster_on_cpu
from segjax.errors import UserError
from segjax.forward import Forward, loss_terms
from segjax.memory import trim_memory
from segjax.metrics.combine import OnHost, map_on_host, with_batch
from segjax.metrics.mean import Mean
from segjax.train.sharding import (
    make_mesh,
    replicated,
    split_over,
    to_device,
    to_host,
)
from segjax.train.state import TrainState
from segjax.train.state import variables as state_variables
from segjax.typing import Batch, MetricFn, Objective, PyTree

Evaluator = Callable[..., dict[str, float]]
"""`(state, host batches, *, stop=None, done=None) -> metrics`; see `make_evaluator`."""


class EvaluationStoppedError(Exception):
    """A signal stopped an evaluation before its next batch.

    Attributes:
        signum: The signal.
    """

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


def make_eval_step(
    forward: Forward, objective: Objective, metric: MetricFn
) -> Callable[..., tuple[PyTree, dict[str, Mean]]]:
    """Builds `(variables, batch, step=0) -> (metric, {"loss/<term>": Mean})`.

    Args:
        forward: The model with its preprocessing.
        objective: The objective of training.
        metric: `(outputs, batch) -> Metric`, which leaves out examples of weight 0.

    Returns:
        The function, not compiled. `step` is the number of updates, for objectives that
        change during training.
    """

    def eval_step(variables: PyTree, batch: Batch, step: Any = 0):
        prepared = forward.prepare(batch)
        outputs, _ = forward.apply(variables, prepared, train=False)
        truth = forward.truth(prepared)
        terms = loss_terms(objective, outputs, truth, step=step)
        means = {
            f"loss/{k}": Mean.from_batch(v, batch["weight"]) for k, v in terms.items()
        }
        return metric(outputs, truth), means

    return eval_step


def make_evaluator(
    forward: Forward,
    objective: Objective,
    metric: MetricFn,
    mesh: jax.sharding.Mesh | None = None,
    *,
    variables: Callable[[TrainState], PyTree] = state_variables,
) -> Evaluator:
    """Builds the compiled evaluation over all devices.

    Args:
        forward: The model with its preprocessing.
        objective: The objective of training.
        metric: `(outputs, batch) -> Metric`. Each process computes the host part
            (`metrics.on_host`) from its own images.
        mesh: All devices unless given.
        variables: `state -> variables` to evaluate: by default averaged parameters, if
            the optimizer has them.

    Returns:
        `(state, host batches, *, stop=None, done=None) -> metrics`: those of the
        metric, and `loss` with its terms as means over examples, if the objective has
        terms for outputs outside of training. `stop` is called before each batch; if
        it returns a signal, EvaluationStoppedError is raised. `done` is called with the
        number of this process's images in the finished batches. No batch at all is a
        ValueError.
    """
    mesh = make_mesh() if mesh is None else mesh
    same, split = replicated(mesh), split_over(mesh)
    if mesh.size == 1:
        forward = faster_on_cpu(forward)
    eval_step = make_eval_step(forward, objective, metric)

    programs: list[Callable] = []  # One, compiled for each shape.

    def evaluate(evaluated: PyTree, batch: PyTree, step: Any) -> PyTree:
        if not programs:
            outputs = jax.eval_shape(eval_step, evaluated, batch, step)
            out = _shardings(outputs, same, split)
            programs.append(
                jax.jit(
                    eval_step,
                    in_shardings=(same, split, same),
                    out_shardings=out,
                    compiler_options=compiler_options(),
                )
            )
        return programs[0](evaluated, batch, step)

    def results(
        evaluated: PyTree, batches: Iterable[Batch], step: Any
    ) -> Iterator[Any]:
        for batch in batches:
            # jit copies only the arrays that the program reads: masks that only the
            # host compares are not copied to the device.
            filled = filled_rows(batch, mesh.local_mesh.size)
            if _is_large(filled):
                trim_memory()
            several = jax.process_count() > 1
            placed = to_device(filled, mesh) if several else dict(filled)
            yield evaluate(evaluated, placed, step), filled

    def run(
        state: TrainState,
        batches: Iterable[Batch],
        *,
        stop: Callable[[], int | None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> dict[str, float]:
        watched = _watched(batches, stop, done)
        merged = None
        for made, batch in _fetched(results(variables(state), watched, state.step)):
            new = with_batch(made, forward.host_truth(batch))
            merged = new if merged is None else _merge(merged, new)
        if merged is None:
            raise UserError("Evaluation needs at least one example, got none.")
        found, means = map_on_host(_merge_processes, merged)
        losses = {name: mean.compute()["mean"] for name, mean in means.items()}
        whole = {"loss": sum(losses.values())} if losses else {}
        return {**whole, **losses, **found.compute()}

    return run


def filled_rows(batch: Batch, multiple: int) -> Batch:
    """Adds rows of weight 0 until the number of rows is a multiple.

    Args:
        batch: A stored batch on the host, with at least one row.
        multiple: Such as the number of devices.

    Returns:
        The batch itself if it needs no rows. New rows repeat the first one, with
        ignored labels, without objects and with `index` -1.
    """
    missing = -len(batch["weight"]) % multiple
    if not missing:
        return batch

    def extra(name: str, row: np.ndarray) -> np.ndarray:
        if name == "label" and row.ndim == 3 and "valid" not in batch:
            row = np.full_like(row, ops.ignore_index(row.dtype))
        elif name in ("weight", "valid", "object_mask"):
            row = np.zeros_like(row)
        elif name == "index":
            row = np.full_like(row, -1)
        return np.repeat(row, missing, axis=0)

    arrays = {name: np.asarray(x) for name, x in batch.items()}
    return {name: np.concatenate([x, extra(name, x[:1])]) for name, x in arrays.items()}


def _shardings(outputs: PyTree, same: Any, split: Any) -> PyTree:
    """Keeps outputs that only the host reads on the devices of their images."""
    split_all = map_on_host(lambda x: jax.tree.map(lambda _: split, x), outputs)
    return jax.tree.map(lambda x: x if x is split else same, split_all)


def _merge_processes(part: OnHost) -> OnHost:
    return functools.reduce(lambda a, b: a.merge(b), multihost.gather(part))


def _watched(
    batches: Iterable[Batch],
    stop: Callable[[], int | None] | None,
    done: Callable[[int], None] | None,
) -> Iterator[Batch]:
    images = 0
    for batch in batches:
        if stop is not None and (signum := stop()):
            raise EvaluationStoppedError(signum)
        if done is not None:
            done(images)
        images += int(np.count_nonzero(batch["weight"]))
        yield batch


def _fetched(
    parts: Iterable[tuple[PyTree, Batch]], *, ahead: int = 2
) -> Iterator[tuple[PyTree, Batch]]:
    """Fetches results in order while the device computes later ones.

    Large batches are not computed ahead: two photographs of 20 megapixels at once would
    need another gigabyte.
    """
    waiting: collections.deque[tuple[PyTree, Batch]] = collections.deque()
    for part in parts:
        waiting.append(part)
        while len(waiting) > ahead or (waiting and _is_large(waiting[-1][1])):
            yield _fetch(*waiting.popleft())
    while waiting:
        yield _fetch(*waiting.popleft())


def _is_large(batch: Batch) -> bool:
    return math.prod(np.shape(batch["image"])[:3]) > 2**23


def _fetch(made: PyTree, batch: Batch) -> tuple[PyTree, Batch]:
    return to_host(made), batch


def _merge(a, b):
    return a[0].merge(b[0]), {k: mean.merge(b[1][k]) for k, mean in a[1].items()}
