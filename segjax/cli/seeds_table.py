"""Statistics over seeds: mean, standard deviation and interval."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from segjax import metrics
from segjax.train.metric_lines import split_title

Statistics = dict[str, dict[str, Any]]

_FIRST = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy")
_COLUMNS = 4


def statistics(results: Sequence[Mapping[str, Any]]) -> Statistics:
    """Computes statistics of each metric over seeds.

    Args:
        results: `result.json` of each seed.

    Returns:
        By the name of the metric: `values`, one per seed; `mean`; `std`, with S - 1 in
        the denominator, NaN for one seed; `low` and `high`, the ends of the 95 %
        interval of the mean (Student's t); `n`, the seeds in them. Seeds whose metric
        is NaN are left out of all but `values`.
    """
    names = dict.fromkeys(name for result in results for name in result["metrics"])
    found = {}
    for name in names:
        values = [result["metrics"].get(name, math.nan) for result in results]
        seen = np.array([v for v in values if not math.isnan(v)])
        interval = metrics.mean_interval(seen)
        found[name] = {
            "values": values,
            "mean": interval.value,
            "std": float(seen.std(ddof=1)) if len(seen) > 1 else math.nan,
            "low": interval.low,
            "high": interval.high,
            "n": interval.n,
        }
    return found


def of_each_seed(results: Sequence[Mapping[str, Any]], *, monitor: str) -> Table:
    """A table with one row per seed: its best step and the main metrics."""
    split = results[0]["split"]
    table = Table(
        "seed",
        title=Text(f"{split_title(split)}, one line a seed"),
        title_justify="left",
    )
    table.add_column("best step", justify="right")
    shared = results[0]["metrics"]
    names = [n for n in dict.fromkeys((monitor, *_FIRST)) if n in shared][:_COLUMNS]
    for name in names:
        table.add_column(Text(name), justify="right")
    for result in results:
        values = [f"{result['metrics'].get(n, math.nan):.4f}" for n in names]
        table.add_row(str(result["seed"]), str(result["best_step"]), *values)
    return table


def over_seeds(found: Statistics, *, split: str) -> Table:
    """A table with one row per metric: mean, standard deviation and interval."""
    count = len(next(iter(found.values()))["values"])
    title = Text(f"{split_title(split)}, {count} seeds")
    table = Table("metric", title=title, title_justify="left")
    table.add_column("mean ± std", justify="right")
    table.add_column("95 % interval of the mean", justify="right")
    table.add_column("n", justify="right")
    for name, one in found.items():
        if "/" not in name:
            table.add_row(
                Text(name),
                f"{one['mean']:.4f} ± {one['std']:.4f}",
                f"{one['low']:.4f} to {one['high']:.4f}",
                str(one["n"]),
            )
    return table
