"""Draws what is in results/: speed beside PyTorch, and how cost grows.

    python experiments/benchmarks/plots.py

docs/speed.png has the results of all throughput-MACHINE.json, every system and network
of them; docs/growth-MACHINE.png those of one growth-MACHINE.json. Nothing is measured
here: throughput.py and growth.py do that, and say how. A picture holds a digest of what
it was drawn from, by which a test finds one that is out of date.
"""

import hashlib
import io
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import tyro
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segjax.viz.curves import COLORS

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
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
COLUMNS = 4

Result = Mapping[str, Any]


def load(folder: pathlib.Path, kind: str) -> dict[str, Result]:
    """What a benchmark found, by machine.

    Args:
        folder: With KIND-MACHINE.json.
        kind: throughput or growth.
    """
    paths = sorted(folder.glob(f"{kind}-*.json"))
    if not paths:
        sys.exit(
            f"error: plots need {kind}-MACHINE.json in {folder}, got none. Run "
            f"python experiments/benchmarks/{kind}.py first."
        )
    return {
        path.stem.removeprefix(f"{kind}-"): json.loads(path.read_text(encoding="utf-8"))
        for path in paths
    }


def speed(machines: Mapping[str, Result]) -> Figure:
    """Images/s of every system on every task, where PyTorch's are 1; a panel a machine.

    Args:
        machines: Of throughput.py, by machine.
    """
    heights = [1.2 + 0.95 * len(found["results"]) for found in machines.values()]
    figure = Figure(figsize=(8, 0.5 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(machines), 1, squeeze=False, height_ratios=heights)
    for axes, found in zip(grid[:, 0], machines.values(), strict=True):
        _bars(axes, found["results"])
        axes.set_title(_hardware(found), loc="left", fontsize=9, color=INK)
    handles = {
        bars.get_label(): bars for axes in grid[:, 0] for bars in axes.containers
    }
    figure.legend(
        handles.values(), handles, loc="outside upper left", ncols=4, frameon=False
    )
    return figure


def growth(found: Result) -> Figure:
    """Time and memory of everything that growth.py measured, a panel each.

    Args:
        found: Of one machine.
    """
    results = found["results"]
    rows = -(-len(results) // COLUMNS)
    figure = Figure(figsize=(2.7 * COLUMNS, 2.35 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, result in zip(grid, results, strict=False):
        _lines(axes, result)
    for axes in grid[len(results) :]:
        axes.set_axis_off()
    handles = {line.get_label(): line for line in grid[0].lines}
    figure.legend(
        handles.values(), handles, loc="outside upper left", ncols=4, frameon=False
    )
    caption = (
        f"{_hardware(found)}. Multiples of the first point; exponents over the last "
        f"two doublings; bold: more than due."
    )
    figure.supxlabel(caption, fontsize=9, color=INK)
    return figure


def digest(found: Mapping[str, Any]) -> str:
    """16 digits of what a picture is drawn from."""
    text = json.dumps(found, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _save(figure: Figure, path: pathlib.Path, found: Mapping[str, Any]) -> None:
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110)
    source = PngInfo()
    source.add_text("Source", digest(found))
    # A hundred colors suffice, and a third of the bytes.
    picture = (
        Image.open(stream)
        .convert("RGB")
        .quantize(128, method=Image.Quantize.MAXCOVERAGE)
    )
    picture.save(path, optimize=True, pnginfo=source)
    print(f"Written: {path}")


def _bars(axes: Any, results: list[Result]) -> None:
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
    axes.axvline(1, color=INK, linewidth=0.6)
    axes.set_yticks(range(len(results)), [_task(r["task"]) for r in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.32 * max(bar.get_width() for bar in axes.patches))
    axes.set_xlabel("images/s, PyTorch's are 1", fontsize=9, color=INK)
    _dress(axes, grid="x")


def _lines(axes: Any, result: Result) -> None:
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


def _hardware(found: Result) -> str:
    """Such as `2 cores of AMD EPYC, 2026-11-22, JAX 0.10.2`."""
    device = found["devices"][0].split(maxsplit=1)[-1]
    if device == "cpu":
        device = f"{found['cores']} cores of {found['cpu']}"
    elif (count := len(found["devices"])) > 1:
        device = f"{count} x {device}"
    return f"{device}, {found['date']}, JAX {found['versions']['jax']}"


def main(*, results: pathlib.Path = HERE / "results", out: pathlib.Path = DOCS) -> None:
    """Draws.

    Args:
        results: Folder with what the benchmarks found.
        out: Folder for the pictures.
    """
    throughput, grown = load(results, "throughput"), load(results, "growth")
    _save(speed(throughput), out / "speed.png", throughput)
    for machine, found in grown.items():
        _save(growth(found), out / f"growth-{machine}.png", found)


if __name__ == "__main__":
    tyro.cli(main)
