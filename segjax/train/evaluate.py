"""Evaluation: counts on the device, sums on the host, one division at the end."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from segjax.forward import Forward, loss_terms
from segjax.metrics.combine import OnHost, map_on_host, with_batch
from segjax.metrics.mean import Mean
from segjax.train import agree, ema
from segjax.train.parallel import (
    make_mesh,
    replicated,
    split_over,
    to_device,
    to_host,
)
from segjax.train.state import TrainState
from segjax.typing import Batch, MetricFn, Objective, PyTree

Evaluator = Callable[..., dict[str, float]]
"""`(state, host batches, *, stop=None, done=None) -> metrics`; see `make_evaluator`."""


class EvaluationStoppedError(Exception):
    """A signal came during an evaluation, which was left at the next batch.

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
        objective: What training minimizes.
        metric: `(outputs, batch) -> Metric`; weight-0 examples must not count.

    Returns:
        The step, not compiled. `step` is the number of updates done, for objectives
        that change while training.
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
    variables: Callable[[TrainState], PyTree] = ema.variables,
) -> Evaluator:
    """Compiles evaluation over all devices.

    Args:
        forward: The model with its preprocessing.
        objective: What training minimizes.
        metric: `(outputs, batch) -> Metric`. What it makes on the host
            (`metrics.on_host`) is made by each process of its own share of the images.
        mesh: All devices unless given.
        variables: What is evaluated of a state: averaged parameters where the
            optimizer keeps them, unless given.

    Returns:
        `(state, host batches, *, stop=None, done=None) -> metrics`: those of the
        metric, and `loss` with its terms as means over examples, where the objective
        has any for outputs outside of training. `stop`, asked before each batch,
        returns a signal or None; a signal raises EvaluationStoppedError. `done` is
        called with the batches done. An empty stream is a ValueError.
    """
    mesh = make_mesh() if mesh is None else mesh
    same, split = replicated(mesh), split_over(mesh)
    eval_step = make_eval_step(forward, objective, metric)

    @functools.cache
    def compiled() -> Callable:
        return jax.jit(
            eval_step, in_shardings=(same, split, same), out_shardings=outs[0]
        )

    outs: list[PyTree] = []

    def parts(evaluated: PyTree, batches: Iterable[Batch], step: Any) -> Iterator[Any]:
        for batch in batches:
            # As it is on the host where that will do: what the program does not read,
            # such as masks that only the host compares, then does not travel.
            placed = to_device(batch, mesh) if jax.process_count() > 1 else dict(batch)
            if not outs:
                found = jax.eval_shape(eval_step, evaluated, placed, step)
                outs.append(_shardings(found, same, split))
            yield compiled()(evaluated, placed, step), batch

    def run(
        state: TrainState,
        batches: Iterable[Batch],
        *,
        stop: Callable[[], int | None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> dict[str, float]:
        watched = _watched(batches, stop, done)
        merged = None
        for made, batch in _fetched(parts(variables(state), watched, state.step)):
            new = with_batch(made, forward.host_truth(batch))
            merged = new if merged is None else _merge(merged, new)
        if merged is None:
            raise ValueError("Evaluation needs at least one example, got none.")
        found, means = map_on_host(_over_processes, merged)
        losses = {name: mean.compute()["mean"] for name, mean in means.items()}
        whole = {"loss": sum(losses.values())} if losses else {}
        return {**whole, **losses, **found.compute()}

    return run


def _shardings(outputs: PyTree, same: Any, split: Any) -> PyTree:
    """Arrays that only the host reads stay where their images are."""
    split_all = map_on_host(lambda x: jax.tree.map(lambda _: split, x), outputs)
    return jax.tree.map(lambda x: x if x is split else same, split_all)


def _over_processes(part: OnHost) -> OnHost:
    return functools.reduce(lambda a, b: a.merge(b), agree.of_each(part))


def _watched(
    batches: Iterable[Batch],
    stop: Callable[[], int | None] | None,
    done: Callable[[int], None] | None,
) -> Iterator[Batch]:
    for number, batch in enumerate(batches):
        if stop is not None and (signum := stop()):
            raise EvaluationStoppedError(signum)
        if done is not None:
            done(number)
        yield batch


def _fetched(
    parts: Iterable[tuple[PyTree, Batch]], *, ahead: int = 2
) -> Iterator[tuple[PyTree, Batch]]:
    """Results on the host, in order, while the device works on those after them."""
    waiting: collections.deque[tuple[PyTree, Batch]] = collections.deque()
    for part in parts:
        waiting.append(part)
        if len(waiting) > ahead:
            yield _fetch(*waiting.popleft())
    while waiting:
        yield _fetch(*waiting.popleft())


def _fetch(made: PyTree, batch: Batch) -> tuple[PyTree, Batch]:
    return to_host(made), batch


def _merge(a, b):
    return a[0].merge(b[0]), {k: mean.merge(b[1][k]) for k, mean in a[1].items()}
