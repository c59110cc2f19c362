"""Evaluation: counts on the device, sums on the host, one division at the end."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator

import jax

from segjax import ops
from segjax.metrics.mean import Mean
from segjax.train import ema
from segjax.train.parallel import make_mesh, replicated, split_over, to_devices
from segjax.train.state import TrainState
from segjax.train.step import Inputs, image_only
from segjax.typing import Batch, MetricFn, Objective, PyTree


def make_eval_step(
    apply: Callable,
    objective: Objective,
    metric: MetricFn,
    *,
    inputs: Inputs = image_only,
) -> Callable[[PyTree, Batch], tuple[PyTree, dict[str, Mean]]]:
    """Builds `(variables, batch) -> (metric, {"loss/<term>": Mean})`.

    Args:
        apply: `model.apply` of a linen module.
        objective: What training minimises.
        metric: `(outputs, batch) -> Metric`; weight-0 examples must not count.
        inputs: What the model is given of a batch, by name.

    Returns:
        The step, not compiled.
    """

    def eval_step(variables: PyTree, batch: Batch):
        batch = dict(batch) | {"image": ops.to_float(batch["image"])}
        outputs = apply(variables, **inputs(batch), train=False)
        terms = objective(outputs, batch)
        means = {
            f"loss/{k}": Mean.from_batch(v, batch["weight"]) for k, v in terms.items()
        }
        return metric(outputs, batch), means

    return eval_step


def make_evaluator(
    apply: Callable,
    objective: Objective,
    metric: MetricFn,
    mesh=None,
    *,
    inputs: Inputs = image_only,
) -> Callable[[TrainState, Iterable[Batch]], dict[str, float]]:
    """Compiles evaluation over all devices.

    The averaged parameters are used where the optimizer keeps them (`with_ema`).

    Args:
        apply: `model.apply` of a linen module.
        objective: What training minimises.
        metric: `(outputs, batch) -> Metric`.
        mesh: All devices unless given.
        inputs: What the model is given of a batch, by name.

    Returns:
        `(state, host batches) -> figures`: those of the metric, and `loss` with its
        terms as means over examples, where the objective has any for outputs outside
        of training. An empty stream is a ValueError.
    """
    mesh = make_mesh() if mesh is None else mesh
    same, split = replicated(mesh), split_over(mesh)
    compiled = jax.jit(
        make_eval_step(apply, objective, metric, inputs=inputs),
        in_shardings=(same, split),
        out_shardings=same,
    )

    def run(state: TrainState, batches: Iterable[Batch]) -> dict[str, float]:
        used = ema.variables(state)
        parts = (compiled(used, batch) for batch in to_devices(batches, mesh))
        fetched = _fetched(parts)
        first = next(fetched, None)
        if first is None:
            raise ValueError("Evaluation needs at least one example, got none.")
        figures, means = functools.reduce(_merge, fetched, first)
        losses = {name: mean.compute()["mean"] for name, mean in means.items()}
        whole = {"loss": sum(losses.values())} if losses else {}
        return {**whole, **losses, **figures.compute()}

    return run


def _fetched(parts: Iterable[PyTree], *, ahead: int = 2) -> Iterator[PyTree]:
    """Results on the host, in order, while the device works on those after them."""
    waiting: collections.deque[PyTree] = collections.deque()
    for part in parts:
        waiting.append(part)
        if len(waiting) > ahead:
            yield jax.device_get(waiting.popleft())
    yield from map(jax.device_get, waiting)


def _merge(a, b):
    figures = a[0].merge(b[0])
    return figures, {name: mean.merge(b[1][name]) for name, mean in a[1].items()}
