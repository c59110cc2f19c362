"""The metrics of each image of an evaluation: a table, worst first."""

import csv
import io
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import metrics
from segjax import train as training
from segjax.cli import tables
from segjax.files import writing
from segjax.typing import Batch, MetricFn, Objective

Scores = dict[str, float]


class ImageScores:
    """Collects the scores of each image while a metric is evaluated.

    Attributes:
        by_index: The scores of each image, by its position in the split.
    """

    def __init__(self, metric: MetricFn, objective: Objective, *, step: int):
        """Makes an empty collection.

        Args:
            metric: Of an experiment.
            objective: Of the experiment, whose terms are scores too.
            step: Of the state that is evaluated, for losses that depend on it.
        """
        self._metric, self._objective, self._step = metric, objective, step
        self.by_index: dict[int, Scores] = {}

    def metric(self) -> MetricFn:
        """Returns the experiment's metric, which fills `by_index` as it is computed."""
        own = metrics.on_host(self._gather, self._collect)
        return metrics.combine(self._metric, own)

    def _gather(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Computes the loss terms and the metric of each image, on the device."""

        def of_one(outputs: Any, batch: Batch) -> Any:
            return self._metric(*jax.tree.map(lambda x: x[None], (outputs, batch)))

        terms = training.loss_terms(self._objective, outputs, batch, step=self._step)
        return {"metric": jax.vmap(of_one)(outputs, dict(batch)), "loss": terms}

    def _collect(self, arrays: Mapping[str, Any], batch: Batch) -> "_Nothing":
        rows = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        for row in rows.tolist():
            one = {k: np.asarray(x)[row : row + 1] for k, x in batch.items()}
            made = jax.tree.map(lambda x, i=row: np.asarray(x)[i], arrays["metric"])
            found = metrics.with_batch(made, one).compute()
            losses = {k: float(np.asarray(x)[row]) for k, x in arrays["loss"].items()}
            named = {f"loss/{k}": x for k, x in losses.items()}
            whole = {"loss": sum(losses.values())} if losses else {}
            self.by_index[int(batch["index"][row])] = whole | named | found
        return _Nothing()


class _Nothing:
    """The metric of `ImageScores` itself, which has no score of the data set."""

    def merge(self, other: "_Nothing") -> "_Nothing":
        """Returns itself."""
        return self

    def compute(self) -> Scores:
        """Returns no score."""
        return {}


def ranked(
    by_index: Mapping[int, Scores], *, monitor: str | None, mode: str
) -> tuple[str, list[int]]:
    """Sorts images, the worst first.

    Args:
        by_index: From `ImageScores`.
        monitor: The score to sort by, if the images have it. Else the loss, or the
            first score.
        mode: "max" if high values of `monitor` are good, else "min".

    Returns:
        (the score, positions in the split). Images without the score come last.
    """
    names = list(dict.fromkeys(name for scores in by_index.values() for name in scores))
    if monitor in names:
        name, sign = str(monitor), 1.0 if mode == "max" else -1.0
    else:
        name = "loss" if "loss" in names else names[0]
        sign = -1.0 if name == "loss" else 1.0

    def key(index: int) -> tuple[float, int]:
        value = by_index[index].get(name, math.nan)
        return (math.inf if math.isnan(value) else sign * value), index

    return name, sorted(by_index, key=key)


def write_csv(
    path: pathlib.Path,
    by_index: Mapping[int, Scores],
    order: Sequence[int],
    name_of: Callable[[int], str],
) -> None:
    """Writes one row an image; a score that an image does not have is empty.

    Args:
        path: The file.
        by_index: From `ImageScores`.
        order: Positions in the split, in the order of the rows.
        name_of: Position to the image's name.
    """
    keys = list(dict.fromkeys(name for scores in by_index.values() for name in scores))
    rows = []
    for rank, index in enumerate(order, start=1):
        values = (by_index[index].get(key, math.nan) for key in keys)
        cells = ("" if math.isnan(x) else tables.cell(float(x)) for x in values)
        rows.append([rank, index, tables.cell(name_of(index)), *cells])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["rank", "index", "name", *map(tables.cell, keys)])
    writer.writerows(rows)
    writing.write_bytes(path, text.getvalue().encode())
