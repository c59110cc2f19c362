"""The panels of plots.py: bars of speed, lines of growth."""

from collections.abc import Mapping
from typing import Any

from segjax.viz.curves import COLORS

INK = "#22262b"
BASE = "torch"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = COLORS
SYSTEMS = {
    "segjax": ("segjax", BLUE),
    BASE: ("PyTorch, channels last", VERMILLION),
    "torch-compile": ("torch.compile", PURPLE),
    "plain": ("the same network in plain Flax", SKY),
}
NETWORKS = {"unet": "U-Net", "fcn": "FCN-8s", "paper_unet": "U-Net of the paper"}
MODES = {"train": "training step", "infer": "inference"}

Result = Mapping[str, Any]


def speed(axes: Any, results: list[Result]) -> None:
    """Bars of images/s, every task and system of a machine."""
    names = [name for name in SYSTEMS if any(name in r["systems"] for r in results)]
    names += sorted({n for r in results for n in r["systems"]} - set(names))
    thick = 0.84 / len(names)
    for i, name in enumerate(names):
        label, color = SYSTEMS.get(name, (name, ORANGE))
        places, shares, texts = [], [], []
        for row, result in enumerate(results):
            if name not in result["systems"]:
                continue
            pace = result["systems"][name]["images_a_second"]
            share = pace / result["systems"][BASE]["images_a_second"]
            places.append(row + (i - (len(names) - 1) / 2) * thick)
            shares.append(share)
            texts.append(f"{share:.2f}x   {pace:.3g} images/s")
        bars = axes.barh(places, shares, 0.9 * thick, color=color, label=label)
        for text in axes.bar_label(bars, texts, padding=4, fontsize=8, color=INK):
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(1, color=INK, linewidth=0.6, zorder=0.5)
    axes.set_yticks(range(len(results)), [_task(r["task"]) for r in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.32 * max(bar.get_width() for bar in axes.patches))
    axes.set_xlabel("images/s, PyTorch's are 1", fontsize=9, color=INK)
    _dress(axes, grid="x")


def growth(axes: Any, result: Result) -> None:
    """Time and memory of one axis, beside what is due."""
    x, exponents = result["values"], result["exponents"]
    first = len(x) - result["points_of_the_exponents"]
    series = {"time": result["seconds"], "memory": result["bytes"]}
    for (name, y), color in zip(series.items(), (BLUE, GREEN), strict=True):
        y = [value / y[0] for value in y]
        due = exponents[name]["expected"]
        line = {"color": color, "marker": "o", "markersize": 3, "linewidth": 1.6}
        axes.loglog(x, y, label=name, base=2, **line)
        ends = [y[first] * (end / x[first]) ** due for end in (x[first], x[-1])]
        thin = {"color": color, "linestyle": "--", "linewidth": 0.9}
        label = f"{name}, as the mathematics has it"
        axes.loglog((x[first], x[-1]), ends, label=label, base=2, **thin)
    more = any(exponents[name]["worse"] for name in series)
    powers = ", ".join(f"{name} {exponents[name]['measured']:.2f}" for name in series)
    orders = sorted({f"{exponents[name]['expected']:g}" for name in series})
    note = f"exponents: {powers}; due {' and '.join(orders)}"
    axes.set_title(
        f"{result['what']}\n",
        loc="left",
        fontsize=9,
        color=VERMILLION if more else INK,
        fontweight="bold" if more else "normal",
    )
    axes.text(0, 1.03, note, transform=axes.transAxes, fontsize=6.5, color=INK)
    axes.set_xlabel(result["over"], fontsize=8, color=INK)
    axes.set_xticks(x, [str(value) for value in x])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    _dress(axes, grid="both")


def _dress(axes: Any, *, grid: str) -> None:
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(axis=grid, color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=INK, alpha=0.4)


def _task(task: Result) -> str:
    network = NETWORKS.get(task["network"], task["network"])
    size = f"{task['size']}x{task['size']}"
    return (
        f"{network}, {MODES.get(task['mode'], task['mode'])}\n"
        f"{task['batch']} images of {size},\n{task['dtype']}"
    )
