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

import bench
import panels
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DOCS = bench.HERE.parents[1] / "docs"
COLUMNS = 4

Result = Mapping[str, Any]


def load(folder: pathlib.Path, kind: str) -> dict[str, Result]:
    """What a benchmark found, by machine.

    Args:
        folder: With KIND-MACHINE.json.
        kind: throughput or growth.
    """
    paths = sorted(folder.glob(f"{kind}-*.json"), reverse=True)
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
        panels.speed(axes, found["results"])
        axes.set_title(_hardware(found), loc="left", fontsize=9, color=panels.INK)
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
        panels.growth(axes, result)
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
    figure.supxlabel(caption, fontsize=9, color=panels.INK)
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


def _hardware(found: Result) -> str:
    """Such as `2 cores of AMD EPYC, 2026-11-22, JAX 0.10.2`."""
    device = found["devices"][0].split(maxsplit=1)[-1]
    if device == "cpu":
        cores = "1 core" if found["cores"] == 1 else f"{found['cores']} cores"
        device = f"{cores} of {found['cpu']}"
    elif (count := len(found["devices"])) > 1:
        device = f"{count} x {device}"
    return f"{device}, {found['date']}, JAX {found['versions']['jax']}"


def main(*, results: pathlib.Path = bench.RESULTS, out: pathlib.Path = DOCS) -> None:
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
    bench.run(main)
