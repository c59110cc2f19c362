"""Training curves as one SVG that takes on the colours of its page."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segjax.viz.palette import OKABE_ITO

Records = Sequence[Mapping[str, Any]]
Series = dict[str, tuple[list[int], list[float]]]

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""

COLOURS = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in OKABE_ITO]
COLOURS = [COLOURS[i] for i in (4, 5, 2, 6, 0, 1)]  # Blue and vermillion first.
_NOISY = ("loss", "gradient norm")
_SMOOTH_FROM = 60
_MOST_SCORES = 4
_LARGEST = 1e100  # Losses are float32; near 1e308 a log axis overflows.
_MOST_INSIDE = 4  # Entries of a legend that fit between the lines.
_TELLING = (
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
    """Names of figures: the one that picked the best checkpoint, those most quoted."""
    names = list(names)
    first = [n for n in (monitor or "", *_TELLING) if n in names]
    return list(dict.fromkeys([*first, *names]))


def curves(records: Records, *, monitor: str | None = None) -> str | None:
    """Plots losses, scores, learning rate and gradient norm against the step.

    Args:
        records: Lines of metrics.jsonl: `kind` is "train" or "eval", `step` an
            integer, the rest numbers by name. Scores are the four most telling of
            eval records' names without a slash whose values lie in [0, 1]. The legend
            gives the last value; of long losses and norms, which are drawn smoothed,
            the mean of the last thirtieth.
        monitor: The figure that picks the best checkpoint, drawn first.

    Returns:
        An `<svg>` element that refers to nothing outside itself and uses
        `currentColor`; None where there is nothing to plot.
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
    """`mean_iou` as people write it: `mean IoU`.

    Names come from files: what cannot be printed is a `?`, and `$` begins no formula.
    """
    name = "".join(c if c.isprintable() else "?" for c in name).replace("$", r"\$")
    names = {"iou": "IoU", "dice": "Dice", "grad": "gradient"}
    names |= {name: name.upper() for name in ("ap", "ap50", "ap75", "ar")}
    return " ".join(names.get(word, word) for word in name.split("_"))


def dress(axes: Any, panel: str, *, ink: str) -> None:
    """Gives a filled panel its title, step axis, thin grid and legend.

    Args:
        axes: Matplotlib's, with what it shows drawn.
        panel: Its title.
        ink: The colour of text and lines.
    """
    axes.set_xlim(left=0)
    axes.set_title(panel, loc="left", fontsize=10, color=ink)
    axes.set_xlabel("step", fontsize=8, color=ink)
    axes.tick_params(colors=ink, labelsize=8, which="both", length=0)
    axes.grid(color=ink, alpha=0.12, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=ink, alpha=0.4)
    many = len(axes.get_legend_handles_labels()[1]) > _MOST_INSIDE
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if many else {}
    axes.legend(fontsize=8, labelcolor=ink, frameon=False, **beside)


def _losses(train: Records, evaluated: Records) -> Series:
    names = sorted({k for r in train for k in r if k.startswith("loss/")})
    # A single term is the loss itself.
    series = _series(train, ["loss", *(names if len(names) > 1 else [])])
    series = {f"train {name}": points for name, points in series.items()}
    for split, records in _by_split(evaluated).items():
        for _, points in _series(records, ["loss"]).items():
            series[f"{split} loss"] = points
    return series


def _scores(evaluated: Records, monitor: str | None) -> Series:
    scores: Series = {}
    splits = _by_split(evaluated)
    # A split that was looked at once, as test is, has no curve.
    longest = max(map(len, splits.values()), default=0)
    splits = {k: v for k, v in splits.items() if len(v) > 1 or longest == 1}
    for split, records in splits.items():
        # "step" and "epoch" count; the rest without a slash is a figure.
        names = dict.fromkeys(k for r in records for k in r if "/" not in k)
        names = [n for n in names if n not in ("step", "epoch", "loss")]
        names = by_importance(names, monitor=monitor)
        prefix = f"{split} " if len(splits) > 1 else ""
        found = _series(records, names).items()
        found = [(k, v) for k, v in found if all(0 <= x <= 1 for x in v[1])]
        scores |= {prefix + name: points for name, points in found[:_MOST_SCORES]}
    return scores


def _by_split(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    splits: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        splits.setdefault(str(record.get("split", "validation")), []).append(record)
    return splits


def _series(records: Records, names: Sequence[str]) -> Series:
    """Finite values by name; names without any are left out."""
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
    return number and abs(x) < _LARGEST


def _svg(panels: Mapping[str, Series]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (panel, series) in zip(grid, panels.items(), strict=False):
        _plot(axes, panel, series)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    stream = io.StringIO()
    # Text stays text, in the page's font; the salt makes identifiers repeatable.
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
        line = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.6}
        if panel in _NOISY and len(values) >= _SMOOTH_FROM:
            axes.plot(steps, values, **(line | {"linewidth": 0.8, "alpha": 0.3}))
            values = _running_mean(values, len(values) // 30)
        elif len(values) < 30:
            line |= {"marker": "o", "markersize": 3}
        axes.plot(steps, values, label=f"{title(name)} {short(values[-1])}", **line)
    values = [v for _, points in series.values() for v in points]
    if panel in _NOISY and min(values) > 0:
        if max(values) > 30 * min(values):
            axes.set_yscale("log")
    elif panel == "score":
        axes.set_ylim(min(0.0, *values), 1.02)
    dress(axes, panel, ink=_INK)


def short(x: float) -> str:
    """Three decimals, or three significant digits of small and large numbers."""
    return f"{x:.3f}" if 0.01 <= abs(x) < 10 else f"{x:.3g}"


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of up to `window` values ending at each place."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means
