"""Metrics, table and figure of `losses_ablation.py`."""

import pathlib
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from segjax import metrics
from segjax.typing import Batch, MetricFn

Scores = Mapping[str, Sequence[Mapping[str, float]]]
"""Test results of each loss, one mapping per seed."""

COLUMNS = {
    "IoU": "mean over the ten digits, from the pixels of the whole test set",
    "IoU - CE": "its difference from cross-entropy's, seed by seed",
    "3 common": "mean IoU of the three most frequent digits",
    "3 rare": "mean IoU of the three rarest digits",
    "3 rare - CE": "its difference from cross-entropy's, seed by seed",
    "rare recall": "recall of the three rarest digits",
    "boundary IoU": "of one-pixel bands, mean over the digits",
    "ink boundary": "boundary IoU of all digits as one class",
    "ink - CE": "its difference from cross-entropy's, seed by seed",
    "ink HD95": "95th percentile of the outlines' distance, in pixels; lower is better",
}

_DIFFERENCES = {
    "IoU - CE": "IoU",
    "3 rare - CE": "3 rare",
    "ink - CE": "ink boundary",
}
_PANELS = 6  # Per row of the figure.
_BLUE = "#0072B2"


def document(header: str, found: Scores, frequency: Mapping[str, float]) -> str:
    """Returns the Markdown page: the script's docstring, the table and its legend."""
    percentages = ", ".join(f"{k}: {100 * v:.2f}" for k, v in frequency.items())
    meaning = "\n".join(f"- {name}: {text}" for name, text in COLUMNS.items())
    return (
        f"# Losses, compared\n\n{header.strip()}\n\n"
        f"{table(found, list(frequency))}\n\n"
        f"Mean ± standard deviation over seeds, best IoU first.\n\n{meaning}\n\n"
        f"Fraction of the training pixels by digit, in %: {percentages}.\n\n"
        f"![IoU of each digit against its frequency](losses_ablation.png)\n"
    )


def make_metric(classes: Sequence[str]) -> MetricFn:
    """Returns region and boundary metrics of digits, and boundary metrics of ink."""
    ink = ("background", "ink")
    return metrics.combine(
        metrics.semantic(classes),
        metrics.boundary_iou(classes),
        ink=of_ink(metrics.combine(metrics.boundary_iou(ink), metrics.surface(ink))),
    )


def of_ink(metric: MetricFn) -> MetricFn:
    """Returns the metric with all digits merged into one class."""

    def binary(logits, batch: Batch):
        logits = jnp.stack([logits[..., 0], jnp.max(logits[..., 1:], axis=-1)], axis=-1)
        return metric(logits, dict(batch) | {"label": jnp.minimum(batch["label"], 1)})

    return binary


def row(results: Mapping[str, float], ranked: Sequence[str]) -> dict[str, float]:
    """Returns the columns of one run; `ranked` are the digits, most frequent first."""

    def mean(score: str, names: Sequence[str]) -> float:
        return float(np.mean([results[f"{score}/{name}"] for name in names]))

    return {
        "IoU": mean("iou", ranked),
        "3 common": mean("iou", ranked[:3]),
        "3 rare": mean("iou", ranked[-3:]),
        "rare recall": mean("recall", ranked[-3:]),
        "boundary IoU": results["mean_boundary_iou"],
        "ink boundary": results["ink_mean_boundary_iou"],
        "ink HD95": results["ink_mean_hd95_per_image"],
    }


def table(found: Scores, ranked: Sequence[str]) -> str:
    """Returns a Markdown table: one row per loss, mean ± standard deviation over seeds.

    Args:
        found: Test results of each loss; the first loss is the baseline.
        ranked: The digits, most frequent first.
    """
    rows = {name: [row(f, ranked) for f in runs] for name, runs in found.items()}
    base = next(iter(rows.values()))
    lines = ["| loss | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name in sorted(rows, key=lambda name: -np.mean([r["IoU"] for r in rows[name]])):
        cells = []
        for column in COLUMNS:
            values = [r[_DIFFERENCES.get(column, column)] for r in rows[name]]
            if column in _DIFFERENCES:
                values = np.subtract(values, [r[_DIFFERENCES[column]] for r in base])
            cells.append(_cell(values, signed=column in _DIFFERENCES))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Scores, frequency: Mapping[str, float], path: pathlib.Path) -> None:
    """Plots the IoU of each digit against its frequency, one panel per loss.

    Args:
        found: Test results of each loss; the first loss is drawn in gray everywhere.
        frequency: Fraction of training pixels by digit, most frequent first.
        path: The PNG to write.
    """
    percentage = 100 * np.array(list(frequency.values()))
    scores = {
        name: np.array([[f[f"iou/{digit}"] for digit in frequency] for f in runs])
        for name, runs in found.items()
    }
    base = next(iter(scores))
    lines = -(-len(scores) // _PANELS)
    figure = Figure(figsize=(2.4 * _PANELS, 2 * lines + 0.6), layout="constrained")
    axes = figure.subplots(lines, _PANELS, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(scores) :]:
        axis.set_visible(False)
    ranked = sorted(scores, key=lambda name: -scores[name].mean())
    for axis, name in zip(axes.flat, ranked, strict=False):
        low, mean, high = (f(scores[name], axis=0) for f in (np.min, np.mean, np.max))
        axis.plot(percentage, scores[base].mean(0), color="0.6", lw=2)
        axis.fill_between(percentage, low, high, color=_BLUE, alpha=0.25, lw=0)
        axis.plot(percentage, mean, "o-", color=_BLUE, ms=3, lw=1)
        axis.set_title(f"{name}: {mean.mean():.2f}", fontsize=8)
        axis.set(xscale="log", ylim=(0, 1), xticks=(0.3, 1, 3))
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    for axis in axes.flat[max(0, len(scores) - _PANELS) : len(scores)]:
        axis.tick_params(labelbottom=True)  # The last one in its column.
    best = scores[ranked[0]].mean(0)
    for x, y, digit in zip(percentage, best, frequency, strict=True):
        axes[0, 0].annotate(digit, (x, y - 0.15), ha="center", fontsize=7)
    figure.supxlabel("fraction of the training pixels, % (log scale)")
    figure.supylabel("test IoU of a digit")
    figure.suptitle(
        f"Mean and range over seeds; {base} in gray; mean over digits in the titles",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _cell(values: ArrayLike, *, signed: bool) -> str:
    values = np.asarray(values)
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):{'+' if signed else ''}.3f}{spread}"
