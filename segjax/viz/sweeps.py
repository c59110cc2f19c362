"""The trials of a search of settings."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from segjax import optional
from segjax.viz.curves import COLORS, plain, title

_INK = "#22262b"
_DOT: dict[str, Any] = {"markersize": 5, "markeredgewidth": 0, "alpha": 0.8}


def sweep_trials(
    numbers: Sequence[int],
    values: Sequence[float],
    settings: Mapping[str, Sequence[Any]],
    *,
    metric: str,
    log: Collection[str] = (),
    maximize: bool = True,
) -> bytes:
    """Plots the trials of a search: by number, and by each setting.

    Args:
        numbers: N numbers of trials, in order.
        values: [N], the metric of each.
        settings: By name, N values: numbers, or texts in panels of categories.
        metric: Its name.
        log: Names of settings whose axis is logarithmic.
        maximize: Whether larger values are better, for the line of the best so far.

    Returns:
        A PNG with white background.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    plots = optional.require("matplotlib.figure", extra="report", purpose="figures")
    count = 1 + len(settings)
    columns = min(count, 3)
    lines = -(-count // columns)
    figure = plots.Figure(figsize=(3.6 * columns, 2.6 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    panels = grid.ravel()
    best = (np.maximum if maximize else np.minimum).accumulate(values)
    winner = int(np.argmax(values) if maximize else np.argmin(values))
    panels[0].plot(numbers, values, "o", color=COLORS[1], **_DOT)
    panels[0].step(numbers, best, where="post", color=COLORS[0], linewidth=1.4)
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    _label(panels[0], "trial", numbers[winner], values[winner])
    for axes, (name, x) in zip(panels[1:], settings.items(), strict=False):
        if any(isinstance(value, str) for value in x):
            names = sorted(set(map(str, x)), key=_in_order)
            x = [names.index(str(value)) for value in x]
            axes.set_xticks(range(len(names)), [plain(n) for n in names])
            axes.set_xlim(-0.5, len(names) - 0.5)
        elif name in log:
            axes.set_xscale("log")
        axes.plot(x, values, "o", color=COLORS[1], **_DOT)
        _label(axes, plain(name), x[winner], values[winner])
    for axes in panels[count:]:
        axes.set_visible(False)
    for line in grid:
        line[0].set_ylabel(title(metric), fontsize=9, color=_INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _in_order(text: str) -> tuple[float, str]:
    """Sorts numbers by value, before other texts."""
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _label(axes: Any, name: str, x: Any, y: float) -> None:
    """Marks the best trial, and names the horizontal axis."""
    axes.plot([x], [y], "o", color=COLORS[0], markersize=7, markeredgewidth=0)
    axes.set_xlabel(name, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
