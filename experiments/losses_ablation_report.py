"""What `losses_ablation.py` scores, its table and its figure."""

import pathlib
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from segjax import metrics
from segjax.typing import Batch, MetricFn

Figures = Mapping[str, Sequence[Mapping[str, float]]]
"""What each loss scored, one mapping a seed."""

COLUMNS = {
    "IoU": "mean over the ten digits, test set as one image",
    "IoU - CE": "difference of that from cross-entropy's, seed by seed",
    "3 common": "the same over the three most frequent digits",
    "3 rare": "the same over the three rarest",
    "3 rare - CE": "difference of that from cross-entropy's, seed by seed",
    "rare recall": "recall of the three rarest",
    "boundary IoU": "of one-pixel bands, mean over the digits",
    "ink boundary": "boundary IoU of all digits as one class: where, not which",
    "ink - CE": "difference of that from cross-entropy's, seed by seed",
    "ink HD95": "95th percentile of the outlines' distance, in pixels; less is better",
}

_DIFFERENCES = {
    "IoU - CE": "IoU",
    "3 rare - CE": "3 rare",
    "ink - CE": "ink boundary",
}
_PANELS = 6  # In a line of the figure.
_BLUE = "#0072B2"


def document(header: str, found: Figures, frequency: Mapping[str, float]) -> str:
    """The Markdown page: the script's header, the table and what its columns mean."""
    shares = ", ".join(f"{k}: {100 * v:.2f}" for k, v in frequency.items())
    meaning = "\n".join(f"- {name}: {text}" for name, text in COLUMNS.items())
    return (
        f"# Losses, compared\n\n{header.strip()}\n\n"
        f"{table(found, list(frequency))}\n\n"
        f"Mean ± standard deviation over seeds, best IoU first.\n\n{meaning}\n\n"
        f"Share of the training pixels by digit, in %: {shares}.\n\n"
        f"![IoU of each digit against its frequency](losses_ablation.png)\n"
    )


def make_metric(classes: Sequence[str]) -> MetricFn:
    """Regions and boundaries of digits, and boundaries of ink."""
    ink = ("background", "ink")
    return metrics.combine(
        metrics.semantic(classes),
        metrics.boundary_iou(classes),
        ink=of_ink(metrics.combine(metrics.boundary_iou(ink), metrics.surface(ink))),
    )


def of_ink(metric: MetricFn) -> MetricFn:
    """The metric with all digits as one class."""

    def binary(logits, batch: Batch):
        logits = jnp.stack([logits[..., 0], jnp.max(logits[..., 1:], axis=-1)], axis=-1)
        return metric(logits, dict(batch) | {"label": jnp.minimum(batch["label"], 1)})

    return binary


def row(results: Mapping[str, float], ranked: Sequence[str]) -> dict[str, float]:
    """The columns of one run; `ranked` are the digits, most frequent first."""

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


def table(found: Figures, ranked: Sequence[str]) -> str:
    """Markdown: a line a loss, best IoU first, mean ± standard deviation over seeds.

    Args:
        found: What each loss scored; the first is the one to compare with.
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


def draw(found: Figures, frequency: Mapping[str, float], path: pathlib.Path) -> None:
    """A panel a loss: IoU of each digit against its frequency, the first loss in gray.

    Args:
        found: What each loss scored.
        frequency: Share of training pixels by digit, most frequent first.
        path: The PNG to write.
    """
    share = 100 * np.array(list(frequency.values()))
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
        axis.plot(share, scores[base].mean(0), color="0.6", lw=2)
        axis.fill_between(share, low, high, color=_BLUE, alpha=0.25, lw=0)
        axis.plot(share, mean, "o-", color=_BLUE, ms=3, lw=1)
        axis.set_title(f"{name}: {mean.mean():.2f}", fontsize=8)
        axis.set(xscale="log", ylim=(0, 1), xticks=(0.3, 1, 3))
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    for axis in axes.flat[max(0, len(scores) - _PANELS) : len(scores)]:
        axis.tick_params(labelbottom=True)  # The last of its column.
    for x, y, digit in zip(share, scores[ranked[0]].mean(0), frequency, strict=True):
        axes[0, 0].annotate(digit, (x, y - 0.15), ha="center", fontsize=7)
    figure.supxlabel("share of the training pixels, % (log scale)")
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
