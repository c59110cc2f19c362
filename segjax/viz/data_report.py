"""The report of a data set before training: one self-contained HTML file."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from segjax.viz.palette import palette
from segjax.viz.report import page_template
from segjax.viz.rgb import Rgb
from segjax.viz.thumbnails import picture_uri

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Headings, and rows of cells."""

_CHANNELS = ("#d55e00", "#009e73", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT = 320, 90
_MOST_CHANNELS, _MOST_CLASSES = 6, 20


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        pixels: [H, W, 3].
        title: Names of images.
        note: What is to be seen.
    """

    pixels: Rgb
    title: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
        name: Of the class.
        share: Fraction of the labeled pixels, in [0, 1].
        images: Images that have it, by split.
    """

    name: str
    share: float
    images: Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataReport:
    """What the page shows; empty parts are left out.

    Attributes:
        name: Of the data set.
        facts: Short facts, as (name, value).
        findings: What is worth a look before training, one sentence each.
        splits: Names of the splits, for the columns of `classes`.
        classes: One row a class.
        sizes: Table of image sizes.
        histograms: [K, N] pixels by channel and intensity.
        span: Lowest and highest intensity of the histograms.
        co_occurrence: [C, C] fraction of the images of a class that have another one.
        sections: Titles, a sentence, and pictures.
        settings: What `segjax train --data` would choose, as (name, text).
    """

    name: str
    facts: Sequence[tuple[str, str]]
    findings: Sequence[str]
    splits: Sequence[str]
    classes: Sequence[ClassRow]
    sizes: Table
    histograms: np.ndarray
    span: tuple[float, float]
    co_occurrence: np.ndarray
    sections: Sequence[tuple[str, str, Sequence[Figure]]]
    settings: Sequence[tuple[str, str]] = ()


def render_data_report(report: DataReport) -> str:
    """Renders the page.

    Raises:
        ValueError: If jinja2 is not installed.
    """
    colors = palette(max(len(report.classes), 1)).tolist()
    most = max((row.share for row in report.classes), default=1) or 1
    classes = [
        {
            "name": row.name,
            "color": rgb,
            "share": f"{100 * row.share:.3g} %",
            "bar": round(100 * row.share / most, 2),
            "images": [f"{count:,}" for count in row.images],
        }
        for row, rgb in zip(report.classes, colors, strict=False)
    ]
    sections = [
        (
            *(title, text),
            [
                {"uri": picture_uri(f.pixels), "title": f.title, "note": f.note}
                for f in pictures
            ],
        )
        for title, text, pictures in report.sections
        if pictures
    ]
    some = 2 < len(report.classes) <= _MOST_CLASSES
    return page_template("data_report.html").render(
        report=report,
        classes=classes,
        sections=sections,
        curves=_curves(report.histograms),
        size=(_WIDTH, _HEIGHT),
        ends=[f"{x:g}" for x in report.span],
        co_occurrence=_cells(report.co_occurrence) if some else [],
    )


def _curves(histograms: np.ndarray) -> list[tuple[str, str]]:
    """Colors and SVG paths of the channels; heights are roots, so that few show."""
    drawn = np.sqrt(histograms[:_MOST_CHANNELS].astype(np.float64))
    top = drawn.max(initial=1e-9)
    xs = np.linspace(0, _WIDTH, drawn.shape[1]) if drawn.size else np.zeros(0)
    paths = []
    for color, row in zip(_CHANNELS, drawn, strict=False):
        ys = _HEIGHT * (1 - row / top)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        paths.append((color if len(drawn) > 1 else "currentColor", points))
    return paths


def _cells(co_occurrence: np.ndarray) -> list[list[tuple[str, float]]]:
    """Text and shade of each cell."""
    return [
        [
            (
                "" if np.isnan(x) else f"{100 * x:.0f}",
                round(float(np.nan_to_num(x)), 2),
            )
            for x in row
        ]
        for row in co_occurrence
    ]
