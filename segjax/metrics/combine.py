"""Several metrics as one, and metrics that only the host can make."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.core

from segjax.typing import Array, Batch, Metric, MetricFn


@flax.struct.dataclass
class Combined:
    """Several metrics side by side.

    Attributes:
        parts: Metrics by place and name; each merges with its own kind.
        prefixes: What each part's keys begin with.
    """

    parts: tuple[Any, ...]
    prefixes: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def merge(self, other: "Combined") -> "Combined":
        """Merges part by part."""
        pairs = zip(self.parts, other.parts, strict=True)
        return Combined(tuple(a.merge(b) for a, b in pairs), self.prefixes)

    def compute(self) -> dict[str, float]:
        """The scores of all parts.

        Raises:
            ValueError: If two parts give one key.
        """
        scores: dict[str, float] = {}
        for part, prefix in zip(self.parts, self.prefixes, strict=True):
            found = {f"{prefix}{k}": v for k, v in part.compute().items()}
            if twice := sorted(scores.keys() & found.keys()):
                raise ValueError(
                    f"combine needs distinct keys, got {', '.join(twice)} twice. Give "
                    f"one of the metrics by name: combine(a, other=b)."
                )
            scores |= found
        return scores


def combine(*metrics: MetricFn, **named: MetricFn) -> MetricFn:
    """One metric function that gives the scores of several.

    Args:
        *metrics: Functions whose keys stay as they are.
        **named: Functions whose keys begin with `<name>_`.

    Returns:
        `(outputs, batch) -> Combined`, to be traced inside the evaluation step.

    Raises:
        ValueError: If no function is given; from `compute`, if two give one key.
    """
    functions = (*metrics, *named.values())
    prefixes = ("",) * len(metrics) + tuple(f"{name}_" for name in named)
    if not functions:
        raise ValueError(
            "combine needs metric functions, got none. Try combine(semantic(classes))."
        )

    def metric(outputs: Any, batch: Batch) -> Combined:
        return Combined(tuple(f(outputs, batch) for f in functions), prefixes)

    return metric


@flax.struct.dataclass
class OnHost:
    """Arrays on their way out of the compiled evaluation, then the metric of them.

    Each process makes the metric of its own images, beside what its host has of them.

    Attributes:
        arrays: What the device hands out, by name, a row an image; None once made.
        made: The metric, once made.
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
            batch: The rows of `arrays` on the host: with `label` int32 and `valid`.
        """
        assert self.make is not None
        return dataclasses.replace(
            self, arrays=None, made=self.make(self.arrays, batch)
        )

    def merge(self, other: "OnHost") -> "OnHost":
        """Merges what was made."""
        return dataclasses.replace(self, made=self.made.merge(other.made))

    def compute(self) -> dict[str, float]:
        """The scores of the metric."""
        return self.made.compute()


def map_on_host(change: Callable[[OnHost], Any], tree: Any) -> Any:
    """A tree of metrics with those that the host makes changed."""
    return jax.tree.map(
        lambda x: change(x) if isinstance(x, OnHost) else x,
        tree,
        is_leaf=lambda x: isinstance(x, OnHost),
    )


def with_batch(tree: Any, batch: Batch) -> Any:
    """Makes the host's metrics of a tree that a compiled function returned.

    Args:
        tree: A metric, or a tree with metrics, on the host.
        batch: What it was made of, with `label` int32 and `valid`.
    """
    return map_on_host(lambda x: x.with_batch(batch), tree)


def on_host(
    gather: Callable[[Any, Batch], Mapping[str, Array]],
    make: Callable[[Mapping[str, Any], Batch], Metric],
) -> MetricFn:
    """A metric function for what needs NumPy or SciPy, such as connected components.

    Args:
        gather: `(outputs, batch) -> arrays by name`, traced inside the step; each has
            the batch as its first axis. Truth need not be among them: `make` gets it.
        make: `(arrays, batch) -> Metric`, called on the host, once a batch. `batch` is
            the one that the host read; rows of weight 0 must not count.

    Returns:
        `(outputs, batch) -> OnHost`. Called outside of a compiled function, it makes
        the metric at once; from one, `OnHost.with_batch` does, as evaluation calls it.
    """

    def metric(outputs: Any, batch: Batch) -> OnHost:
        found = OnHost(dict(gather(outputs, batch)), make=make)
        leaves = jax.tree.leaves((outputs, dict(batch)))
        if any(isinstance(x, jax.core.Tracer) for x in leaves):
            return found
        return jax.device_get(found).with_batch(jax.device_get(dict(batch)))

    return metric
