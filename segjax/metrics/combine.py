"""Combines several metrics into one, and computes metrics on the host."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.core

from segjax.errors import UserError
from segjax.typing import Array, Batch, Metric, MetricFn


@flax.struct.dataclass
class Combined:
    """Several metrics side by side.

    Attributes:
        parts: The metrics; each merges with the one at the same position.
        prefixes: Prefix of the keys of each part.
    """

    parts: tuple[Any, ...]
    prefixes: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def merge(self, other: "Combined") -> "Combined":
        """Merges part by part."""
        pairs = zip(self.parts, other.parts, strict=True)
        return Combined(tuple(a.merge(b) for a, b in pairs), self.prefixes)

    def compute(self) -> dict[str, float]:
        """Computes the scores of all parts.

        Raises:
            ValueError: If two parts have the same key.
        """
        scores: dict[str, float] = {}
        for part, prefix in zip(self.parts, self.prefixes, strict=True):
            found = {f"{prefix}{k}": v for k, v in part.compute().items()}
            if twice := sorted(scores.keys() & found.keys()):
                raise UserError(
                    f"combine needs distinct keys, got {', '.join(twice)} twice. Pass "
                    f"one of the metrics by name: combine(a, other=b)."
                )
            scores |= found
        return scores


def combine(*metrics: MetricFn, **named: MetricFn) -> MetricFn:
    """Combines several metric functions into one.

    Args:
        *metrics: Functions whose keys are unchanged.
        **named: Functions whose keys get the prefix `<name>_`.

    Returns:
        `(outputs, batch) -> Combined`, to be traced inside the evaluation step.

    Raises:
        ValueError: If no function is given; from `compute`, if two have the same key.
    """
    functions = (*metrics, *named.values())
    prefixes = ("",) * len(metrics) + tuple(f"{name}_" for name in named)
    if not functions:
        raise UserError(
            "combine needs metric functions, got none. Try combine(semantic(classes))."
        )

    def metric(outputs: Any, batch: Batch) -> Combined:
        return Combined(tuple(f(outputs, batch) for f in functions), prefixes)

    return metric


@flax.struct.dataclass
class OnHost:
    """A metric that is computed on the host, from arrays of the compiled evaluation.

    Each process computes the metric of its own images from these arrays and the batch
    on its host.

    Attributes:
        arrays: Outputs of the device by name, one row per image; None once `made` is
            set.
        made: The metric, or None before `with_batch`.
        make: `(arrays, batch) -> Metric` in NumPy.
    """

    arrays: Any
    made: Any = None
    make: Callable[[Mapping[str, Any], Batch], Metric] | None = flax.struct.field(
        pytree_node=False, default=None
    )

    def with_batch(self, batch: Batch) -> "OnHost":
        """Makes the metric.

        Args:
            batch: The rows of `arrays` on the host, with `label` int32 and `valid`.
        """
        assert self.make is not None
        return dataclasses.replace(
            self, arrays=None, made=self.make(self.arrays, batch)
        )

    def merge(self, other: "OnHost") -> "OnHost":
        """Merges the metrics of both."""
        return dataclasses.replace(self, made=self.made.merge(other.made))

    def compute(self) -> dict[str, float]:
        """Computes the scores of the metric."""
        return self.made.compute()


def map_on_host(change: Callable[[OnHost], Any], tree: Any) -> Any:
    """Applies `change` to every `OnHost` in a tree of metrics."""
    return jax.tree.map(
        lambda x: change(x) if isinstance(x, OnHost) else x,
        tree,
        is_leaf=lambda x: isinstance(x, OnHost),
    )


def with_batch(tree: Any, batch: Batch) -> Any:
    """Makes the host metrics in a tree that a compiled function returned.

    Args:
        tree: A metric, or a tree with metrics, on the host.
        batch: The batch that it was computed from, with `label` int32 and `valid`.
    """
    return map_on_host(lambda x: x.with_batch(batch), tree)


def on_host(
    gather: Callable[[Any, Batch], Mapping[str, Array]],
    make: Callable[[Mapping[str, Any], Batch], Metric],
) -> MetricFn:
    """Builds a metric function that uses NumPy or SciPy, such as connected components.

    Args:
        gather: `(outputs, batch) -> arrays by name`, traced inside the step; the first
            axis of each is the batch. Labels are not needed among them, because `make`
            receives the batch.
        make: `(arrays, batch) -> Metric`, called on the host, once per batch, with the
            batch as the host read it. It must ignore rows of weight 0.

    Returns:
        `(outputs, batch) -> OnHost`. Outside of compiled functions it makes the metric
        immediately; inside, evaluation calls `OnHost.with_batch` afterwards.
    """

    def metric(outputs: Any, batch: Batch) -> OnHost:
        found = OnHost(dict(gather(outputs, batch)), make=make)
        leaves = jax.tree.leaves((outputs, dict(batch)))
        if any(isinstance(x, jax.core.Tracer) for x in leaves):
            return found
        return jax.device_get(found).with_batch(jax.device_get(dict(batch)))

    return metric
