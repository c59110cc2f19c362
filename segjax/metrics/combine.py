"""Several metrics as one, and metrics that only the host can make."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct

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
        """The figures of all parts.

        Raises:
            ValueError: If two parts give one key.
        """
        figures: dict[str, float] = {}
        for part, prefix in zip(self.parts, self.prefixes, strict=True):
            found = {f"{prefix}{k}": v for k, v in part.compute().items()}
            if twice := sorted(figures.keys() & found.keys()):
                raise ValueError(
                    f"combine needs distinct keys, got {', '.join(twice)} twice. Give "
                    f"one of the metrics by name: combine(a, other=b)."
                )
            figures |= found
        return figures


def combine(*metrics: MetricFn, **named: MetricFn) -> MetricFn:
    """One metric function that gives the figures of several.

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

    Evaluation fetches all batches before it merges them, so the arrays of a whole
    split are held once: keep them small (class ids as uint8, not logits).

    Attributes:
        arrays: What the device hands out, by name; None once made.
        made: The metric, once made.
        make: `(arrays) -> Metric` in NumPy.
    """

    arrays: Any
    made: Any = None
    make: Callable[[Mapping[str, Any]], Metric] | None = flax.struct.field(
        pytree_node=False, default=None
    )

    def metric(self) -> Any:
        """The metric; makes it where that is still to do."""
        if self.made is not None:
            return self.made
        assert self.make is not None
        return self.make(self.arrays)

    def merge(self, other: "OnHost") -> "OnHost":
        """Makes both and merges what was made."""
        made = self.metric().merge(other.metric())
        return dataclasses.replace(self, arrays=None, made=made)

    def compute(self) -> dict[str, float]:
        """The figures of the metric."""
        return self.metric().compute()


def on_host(
    gather: Callable[[Any, Batch], Mapping[str, Array]],
    make: Callable[[Mapping[str, Any]], Metric],
) -> MetricFn:
    """A metric function for what needs NumPy or SciPy, such as connected components.

    Args:
        gather: `(outputs, batch) -> arrays by name`, traced inside the step. Arrays
            have a batch axis; include `index` and `weight` where `make` needs them.
        make: `(arrays) -> Metric`, called on the host, once a batch.

    Returns:
        `(outputs, batch) -> OnHost`.
    """

    def metric(outputs: Any, batch: Batch) -> OnHost:
        return OnHost(dict(gather(outputs, batch)), make=make)

    return metric
