"""Curves of several seeds: mean, range and individual runs."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segjax import optional
from segjax.viz.curves import (
    COLORS,
    Records,
    format_number,
    is_drawable,
    style_axes,
    title,
)

_INK = "#22262b"
_LOSS = "training loss"


def seed_curves(runs: Mapping[int, Records], *, monitor: str) -> bytes | None:
    """Plots the training loss and the monitored metric of several seeds.

    The thick line is the mean over seeds, the band shows the range from the lowest to
    the highest seed, and each thin line is one seed. Only common steps are drawn.

    Args:
        runs: Records of each seed's metrics.jsonl (`read_records`), by seed; at least
            one.
        monitor: The metric of `eval` records that selects the best checkpoint.

    Returns:
        A PNG with white background; None if the seeds have no common step.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    evaluated = [
        r for records in runs.values() for r in records if _is_plotted(r, "eval")
    ]
    split = evaluated[0].get("split", "validation") if evaluated else ""
    panels = {
        _LOSS: _table(runs, "train", "loss"),
        title(f"{split} {monitor}"): _table(runs, "eval", monitor),
    }
    panels = {name: table for name, table in panels.items() if table is not None}
    return _png(panels, count=len(runs)) if panels else None


def _table(
    runs: Mapping[int, Records], kind: str, name: str
) -> tuple[NDArray, NDArray] | None:
    """Returns the steps [T] with finite values of all seeds, and the values [S, T]."""
    seeds = [
        {
            r["step"]: float(r[name])
            for r in records
            if _is_plotted(r, kind) and is_drawable(r.get(name))
        }
        for records in runs.values()
    ]
    steps = sorted(set.intersection(*map(set, seeds)))
    if not steps:
        return None
    return np.array(steps), np.array([[seed[s] for s in steps] for seed in seeds])


def _is_plotted(record: Mapping[str, Any], kind: str) -> bool:
    """Whether a record is part of a curve, unlike the final evaluation."""
    return record.get("kind") == kind and not record.get("final")


def _png(panels: Mapping[str, tuple[NDArray, NDArray]], *, count: int) -> bytes:
    plots = optional.require("matplotlib.figure", extra="report", purpose="curves")
    figure = plots.Figure(figsize=(4.8 * len(panels), 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False).ravel()
    colors = COLORS[: len(panels)]
    for axes, color, (name, table) in zip(grid, colors, panels.items(), strict=True):
        _plot(axes, *table, color=color)
        if name == _LOSS and 0 < 30 * table[1].min() < table[1].max():
            axes.set_yscale("log")
        style_axes(axes, f"{name}, {count} seeds", ink=_INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _plot(axes: Any, steps: NDArray, values: NDArray, *, color: str) -> None:
    mean, low, high = values.mean(0), values.min(0), values.max(0)
    marker = {"marker": "o", "markersize": 3} if len(steps) < 30 else {}
    label = f"mean, {format_number(mean[-1])} at the end"
    axes.plot(steps, mean, color=color, linewidth=1.8, label=label, zorder=3, **marker)
    thin = {"color": color, "alpha": 0.5, "linewidth": 0.7}
    axes.plot(steps, values.T, label=["each seed"] + [""] * (len(values) - 1), **thin)
    band = {"color": color, "alpha": 0.15, "linewidth": 0}
    axes.fill_between(steps, low, high, label="lowest to highest", **band)
