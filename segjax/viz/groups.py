"""Scores of groups of runs: each seed, mean and interval."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segjax import optional
from segjax.viz.curves import COLORS, plain, title

_INK = "#22262b"
_LINE = 0.34  # Inches a group.
_COLUMNS = 3
_TICKS = 5
_DOT: dict[str, Any] = {"markersize": 3.5, "alpha": 0.75, "markeredgewidth": 0}
_BAR: dict[str, Any] = {"markersize": 11, "markeredgewidth": 2}

Group = tuple[NDArray, float, float, float]


def group_intervals(panels: Mapping[str, Mapping[str, Group]]) -> bytes:
    """Plots the scores of groups of runs, one panel a metric, one line a group.

    A dot is a seed, the bar is the mean, the line its interval.

    Args:
        panels: By the panel's title: by group, its scores [N], mean, and the ends of
            the mean's interval, which may be NaN; the same groups in all panels.

    Returns:
        A PNG with white background.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    plots = optional.require("matplotlib.figure", extra="report", purpose="figures")
    names = list(next(iter(panels.values())))
    columns = 2 if len(panels) == 4 else min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    height = rows * (0.9 + _LINE * len(names))
    longest = max(map(len, names))
    width = 3.4 * columns + min(0.075 * longest, 4.0)
    figure = plots.Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, groups) in zip(grid.flat, panels.items(), strict=False):
        for place, (values, mean, low, high) in enumerate(groups.values()):
            axes.plot([low, high], [place] * 2, color=COLORS[0], linewidth=1.4)
            axes.plot([mean], [place], "|", color=COLORS[0], **_BAR)
            axes.plot(values, np.full(len(values), place), "o", color=COLORS[1], **_DOT)
        axes.set_title(title(name), fontsize=9, color=_INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(labelsize=8, colors=_INK)
        axes.grid(axis="x", alpha=0.25)
        axes.locator_params(axis="x", nbins=_TICKS)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    labels = [plain(name) for name in names]
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(names)), labels, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()
