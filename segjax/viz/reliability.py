"""Reliability diagrams: accuracy by confidence."""

import io
from collections.abc import Mapping

import numpy as np

from segjax import optional
from segjax.viz.curves import title

Diagram = Mapping[str, np.ndarray]
"""`count`, `accuracy` and `confidence`, each [bins]."""

_COLORS = {"before": "#d55e00", "after": "#0072b2"}


def reliability(splits: Mapping[str, Mapping[str, Diagram]]) -> bytes:
    """Draws accuracy against confidence, before and after calibration.

    Args:
        splits: By split, the diagrams `before` and `after`; from
            `metrics.Calibration.reliability_diagram`.

    Returns:
        A PNG with one panel per split. Points on the diagonal are calibrated; their
        area grows with the number of pixels.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    module = optional.require(
        "matplotlib.figure", extra="report", purpose="reliability diagrams"
    )
    figure = module.Figure(figsize=(4.2 * len(splits), 4.2), layout="constrained")
    for place, (split, diagrams) in enumerate(splits.items(), start=1):
        axes = figure.add_subplot(1, len(splits), place)
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, zorder=0)
        for when, diagram in diagrams.items():
            part = diagram["count"] / max(1, diagram["count"].sum())
            gaps = np.abs(diagram["accuracy"] - diagram["confidence"])
            ece = float(np.nansum(part * gaps))
            axes.plot(
                diagram["confidence"],
                diagram["accuracy"],
                color=_COLORS[when],
                linewidth=1,
            )
            axes.scatter(
                diagram["confidence"],
                diagram["accuracy"],
                s=8 + 200 * np.sqrt(part),
                color=_COLORS[when],
                alpha=0.6,
                linewidths=0,
                label=f"{when}: ECE {ece:.4f}",
            )
        axes.set(title=title(split), xlabel="confidence", ylabel="accuracy")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
        axes.legend(loc="upper left", frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
