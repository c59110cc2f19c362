"""Training curves as an SVG that adapts to the colors of its page."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segjax import optional
from segjax.viz.palette import OKABE_ITO

Records = Sequence[Mapping[str, Any]]
Series = dict[str, tuple[list[int], list[float]]]

_INK = "#010203"
"""Placeholder of the page's text color, replaced in the SVG."""

COLORS = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in OKABE_ITO]
COLORS = [COLORS[i] for i in (4, 5, 2, 6, 0, 1)]  # Blue and vermillion first.
_NOISY = ("loss", "gradient norm")
_MIN_SMOOTHED = 60
_MAX_SCORES = 4
_MAX_DRAWN = 1e100  # Losses are float32; near 1e308 a log axis overflows.
_MAX_LEGEND_INSIDE = 4  # Legends with more entries are placed next to the plot.
_COMMON_SCORES = (
    "mean_iou",
    "mean_dice",
    "pixel_accuracy",
    "mean_accuracy",
    "mask_ap",
    "mask_ap50",
    "box_ap",
    "dsb2018_score@0.50",
)


def by_importance(names: Iterable[str], *, monitor: str | None = None) -> list[str]:
    """Sorts metric names: the monitored one first, then the most common ones."""
    names = list(names)
    first = [n for n in (monitor or "", *_COMMON_SCORES) if n in names]
    return list(dict.fromkeys([*first, *names]))


def curves(records: Records, *, monitor: str | None = None) -> str | None:
    """Plots losses, scores, learning rate and gradient norm against the step.

    Args:
        records: Records of metrics.jsonl: `kind` is "train" or "eval", `step` an
            integer, the rest numbers by name. Scores are the four most important
            metrics of eval records without a slash in their name and with values in
            [0, 1]. The legend shows the last value; for long losses and norms, which
            are smoothed, the mean of the last thirtieth.
        monitor: The metric that selects the best checkpoint, drawn first.

    Returns:
        A self-contained `<svg>` element that uses `currentColor`; None if there is
        nothing to plot.
    """
    train = [r for r in records if r.get("kind") == "train"]
    evaluated = [r for r in records if r.get("kind") == "eval"]
    panels = {
        "loss": _losses(train, evaluated),
        "score": _scores(evaluated, monitor),
        "learning rate": _series(train, ["learning_rate"]),
        "gradient norm": _series(train, ["grad_norm"]),
    }
    panels = {title: series for title, series in panels.items() if series}
    return _svg(panels) if panels else None


def title(name: str) -> str:
    """Formats a metric name: `mean_iou` to `mean IoU`."""
    name = plain(name)
    names = {"iou": "IoU", "dice": "Dice", "grad": "gradient"}
    names |= {name: name.upper() for name in ("ap", "ap50", "ap75", "ar")}
    return " ".join(names.get(word, word) for word in name.split("_"))


def plain(text: str) -> str:
    """Text for a figure: unprintable characters become `?`, `$` starts no formula."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")


def style_axes(axes: Any, panel: str, *, ink: str) -> None:
    """Adds title, step axis, thin grid and legend to a plotted panel.

    Args:
        axes: Matplotlib axes, already plotted.
        panel: Title of the panel.
        ink: Color of text and lines.
    """
    axes.set_xlim(left=0)
    axes.set_title(panel, loc="left", fontsize=10, color=ink)
    axes.set_xlabel("step", fontsize=8, color=ink)
    axes.tick_params(colors=ink, labelsize=8, which="both", length=0)
    axes.grid(color=ink, alpha=0.12, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=ink, alpha=0.4)
    many = len(axes.get_legend_handles_labels()[1]) > _MAX_LEGEND_INSIDE
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if many else {}
    axes.legend(fontsize=8, labelcolor=ink, frameon=False, **beside)


def _losses(train: Records, evaluated: Records) -> Series:
    names = sorted({k for r in train for k in r if k.startswith("loss/")})
    # A single term equals the loss.
    series = _series(train, ["loss", *(names if len(names) > 1 else [])])
    series = {f"train {name}": points for name, points in series.items()}
    for split, records in _by_split(evaluated).items():
        for _, points in _series(records, ["loss"]).items():
            series[f"{split} loss"] = points
    return series


def _scores(evaluated: Records, monitor: str | None) -> Series:
    scores: Series = {}
    splits = _by_split(evaluated)
    # A split that was evaluated only once, such as test, has no curve.
    longest = max(map(len, splits.values()), default=0)
    splits = {k: v for k, v in splits.items() if len(v) > 1 or longest == 1}
    for split, records in splits.items():
        # All names without a slash are metrics, except "step", "epoch" and "loss".
        names = dict.fromkeys(k for r in records for k in r if "/" not in k)
        names = [n for n in names if n not in ("step", "epoch", "loss")]
        names = by_importance(names, monitor=monitor)
        prefix = f"{split} " if len(splits) > 1 else ""
        found = _series(records, names).items()
        found = [(k, v) for k, v in found if all(0 <= x <= 1 for x in v[1])]
        scores |= {prefix + name: points for name, points in found[:_MAX_SCORES]}
    return scores


def _by_split(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    splits: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        splits.setdefault(str(record.get("split", "validation")), []).append(record)
    return splits


def _series(records: Records, names: Sequence[str]) -> Series:
    """Returns steps and finite values by name; names without any are omitted."""
    series: Series = {}
    for name in names:
        usable = [r for r in records if is_drawable(r.get(name))]
        if usable:
            values = [float(r[name]) for r in usable]
            series[name] = [r["step"] for r in usable], values
    return series


def is_drawable(x: Any) -> bool:
    """Whether a value from a log is a finite number that an axis can have."""
    number = isinstance(x, int | float) and not isinstance(x, bool)
    return number and abs(x) < _MAX_DRAWN


def _svg(panels: Mapping[str, Series]) -> str:
    matplotlib = optional.require("matplotlib", extra="report", purpose="curves")
    plots = optional.require("matplotlib.figure", extra="report", purpose="curves")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = plots.Figure(figsize=(4.6 * columns, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (panel, series) in zip(grid, panels.items(), strict=False):
        _plot(axes, panel, series)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    stream = io.StringIO()
    # Text is not converted to paths; the salt makes identifiers deterministic.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "segjax"}):
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    svg = stream.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _plot(axes: Any, panel: str, series: Series) -> None:
    for i, (name, (steps, values)) in enumerate(series.items()):
        line = {"color": COLORS[i % len(COLORS)], "linewidth": 1.6}
        if panel in _NOISY and len(values) >= _MIN_SMOOTHED:
            axes.plot(steps, values, **(line | {"linewidth": 0.8, "alpha": 0.3}))
            values = _running_mean(values, len(values) // 30)
        elif len(values) < 30:
            line |= {"marker": "o", "markersize": 3}
        label = f"{title(name)} {format_number(values[-1])}"
        axes.plot(steps, values, label=label, **line)
    values = [v for _, points in series.values() for v in points]
    if panel in _NOISY and min(values) > 0:
        if max(values) > 30 * min(values):
            axes.set_yscale("log")
    elif panel == "score":
        axes.set_ylim(min(0.0, *values), 1.02)
    style_axes(axes, panel, ink=_INK)


def format_number(x: float) -> str:
    """Formats with three decimals; small and large numbers with three digits."""
    return f"{x:.3f}" if 0.01 <= abs(x) < 10 else f"{x:.3g}"


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Computes the mean of up to `window` values ending at each position."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means
