"""Curves of several seeds: their mean, their range, and each one thinly."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segjax.viz.curves import COLOURS, Records, dress, is_drawable, short, title

_INK = "#22262b"
_LOSS = "training loss"


def seed_curves(runs: Mapping[int, Records], *, monitor: str) -> bytes | None:
    """Plots the training loss and the monitored figure of several seeds.

    A strong line is the mean over seeds, the band reaches from the lowest seed to the
    highest, and a thin line is a seed. Only steps that all seeds have are drawn.

    Args:
        runs: Lines of each seed's metrics.jsonl (`read_records`), by seed; at least
            one.
        monitor: The figure of `eval` records that picks the best checkpoint.

    Returns:
        A PNG on white; None where the seeds have no step in common.
    """
    evaluated = [r for records in runs.values() for r in records if _counts(r, "eval")]
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
    """Steps [T] and values [S, T] where every seed has a finite one."""
    seeds = [
        {
            r["step"]: float(r[name])
            for r in records
            if _counts(r, kind) and is_drawable(r.get(name))
        }
        for records in runs.values()
    ]
    steps = sorted(set.intersection(*map(set, seeds)))
    if not steps:
        return None
    return np.array(steps), np.array([[seed[s] for s in steps] for seed in seeds])


def _counts(record: Mapping[str, Any], kind: str) -> bool:
    """Whether it is on a curve: the final evaluation, of another split, is not."""
    return record.get("kind") == kind and not record.get("final")


def _png(panels: Mapping[str, tuple[NDArray, NDArray]], *, count: int) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False).ravel()
    colours = COLOURS[: len(panels)]
    for axes, colour, (name, table) in zip(grid, colours, panels.items(), strict=True):
        _plot(axes, *table, colour=colour)
        if name == _LOSS and 0 < 30 * table[1].min() < table[1].max():
            axes.set_yscale("log")
        dress(axes, f"{name}, {count} seeds", ink=_INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _plot(axes: Any, steps: NDArray, values: NDArray, *, colour: str) -> None:
    mean, low, high = values.mean(0), values.min(0), values.max(0)
    marker = {"marker": "o", "markersize": 3} if len(steps) < 30 else {}
    label = f"mean, {short(mean[-1])} at the end"
    axes.plot(steps, mean, color=colour, linewidth=1.8, label=label, zorder=3, **marker)
    thin = {"color": colour, "alpha": 0.5, "linewidth": 0.7}
    axes.plot(steps, values.T, label=["each seed"] + [""] * (len(values) - 1), **thin)
    band = {"color": colour, "alpha": 0.15, "linewidth": 0}
    axes.fill_between(steps, low, high, label="lowest to highest", **band)
