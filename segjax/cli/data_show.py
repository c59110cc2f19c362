"""`segjax data show SOURCE`: a report of a data set, before training."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import tyro
from rich.progress import Progress

from segjax import data, experiments, terminal, viz
from segjax.cli import data_findings, flags, own_data, own_plans
from segjax.errors import UserError
from segjax.files import writing
from segjax.planning import survey

_SAMPLES, _DOUBTFUL = 18, 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Looks at every image and mask, and writes a report that opens offline.

    Attributes:
        what: A folder of your images and masks or objects, as segjax train --data takes
            it, or the name of a data set, such as camvid.
        source: The folder or zip of a named data set.
        out: The report; NAME-data.html by default.
        most: The largest number of images of a split that are read; of more, evenly
            spaced ones.
    """

    what: Annotated[str, tyro.conf.Positional]
    source: pathlib.Path | None = None
    out: pathlib.Path | None = None
    most: int = 1_000


def main(args: Sequence[str], named: Mapping[str, Callable[..., data.Dataset]]) -> None:
    """Writes the report, and prints what is worth a look.

    Args:
        args: The command line after `segjax data show`.
        named: Functions of data sets by name.
    """
    options = flags.read(ShowOptions, args, prog="segjax data show")
    if options.most < 1:
        raise UserError(f"--most needs at least 1 image, got {options.most}.")
    dataset, settings = _opened(options, named)
    console = terminal.console(stderr=True)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("images", total=None)
        found = survey.survey(
            dataset,
            most=options.most,
            progress=lambda n, total: bar.update(task, completed=n, total=total),
        )
    name = pathlib.Path(options.what).resolve().stem
    report = dataclasses.replace(
        data_findings.report_of(found, settings=settings),
        name=name if options.what not in named else dataset.name,
        sections=_sections(found, dataset),
    )
    out = options.out or pathlib.Path(f"{name}-data.html")
    writing.write_bytes(out, viz.render_data_report(report).encode())
    for text in report.findings or ["Nothing unusual was found."]:
        terminal.console().print(f"- {text}", soft_wrap=True)
    terminal.console().print(f"Report: {out}", soft_wrap=True)


def _opened(
    options: ShowOptions, named: Mapping[str, Callable[..., data.Dataset]]
) -> tuple[data.Dataset, list[tuple[str, str]]]:
    """Returns the data set, and the settings that training would choose."""
    path = pathlib.Path(options.what)
    if options.what in named and not path.exists():
        if options.source is None:
            return named[options.what](), []
        return named[options.what](options.source), []
    if not path.exists():
        raise UserError(
            f"{path} is missing: needed a folder, or one of {', '.join(named)}."
        )
    if own_data.task_of(path, []) == "instance":
        keywords = _defaults(experiments.mask_rcnn.experiment, path)
        lines = own_plans.detector(keywords, {})[1]
        return experiments.mask_rcnn.dataset(path), [
            (name, text) for name, text, _ in lines
        ]
    lines = own_plans.semantic(_defaults(experiments.unet.experiment, path), {})[1]
    return data.folder(path), [(name, text) for name, text, _ in lines]


def _defaults(build: Callable, source: pathlib.Path) -> dict[str, Any]:
    """The keywords of an experiment, with its defaults."""
    found = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in found} | {"source": source}


def _sections(
    found: survey.Survey, dataset: data.Dataset
) -> list[tuple[str, str, list[viz.Figure]]]:
    """Pictures: the same image in two splits, doubtful masks, and a sample."""
    colors = viz.palette(max(len(found.classes), 1))

    def example(one: survey.Seen) -> Mapping[str, Any]:
        return dataset.splits[one.place.split][one.place.number]

    def drawn(one: survey.Seen, note: str = "") -> viz.Figure:
        title = f"{one.place.split}: {one.place.name}"
        return viz.Figure(_overlay(example(one), colors), title, note)

    leaks = []
    for pair in found.leaks[:_DOUBTFUL]:
        sides = [found.seen[i] for i in (pair.first, pair.second)]
        pictures = [viz.to_rgb(np.asarray(example(s)["image"])) for s in sides]
        title = ", ".join(f"{s.place.split}: {s.place.name}" for s in sides)
        note = "equal" if pair.exact else f"correlation {pair.correlation:.4f}"
        leaks.append(viz.Figure(_beside(*pictures), title, note))
    doubtful = [
        drawn(one, f"fits better {data_findings.direction(one.alignment.shift)}")
        for one in found.shifted[:_DOUBTFUL]
        if one.alignment is not None
    ]
    return [
        ("The same image in two splits", "A score on them says little.", leaks),
        (
            "Masks that may be shifted",
            "Edges of the image are stronger beside the outlines than along them. "
            "That is a hint: outlines of soft objects fit elsewhere too.",
            doubtful,
        ),
        (
            "Samples",
            "Evenly spaced, and images of the rarest classes.",
            [drawn(one) for one in data_findings.samples(found, _SAMPLES)],
        ),
    ]


def _overlay(example: Mapping[str, Any], colors: np.ndarray) -> np.ndarray:
    image, label = np.asarray(example["image"]), np.asarray(example["label"])
    if "instances" in example:
        # Neighbors have different colors, as far as their ids follow each other.
        ids = np.asarray(example["instances"]).astype(np.int32)
        return viz.overlay(image, np.where(ids, 1 + ids % 12, 0), viz.palette(13))
    valid = label < len(colors)
    return viz.overlay(image, np.where(valid, label, 0), colors, valid=valid)


def _beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Both pictures side by side, at the larger height."""
    height = max(len(one), len(other))
    padded = [
        np.pad(x, ((0, height - len(x)), (0, 0), (0, 0)), constant_values=255)
        for x in (one, other)
    ]
    gap = np.full((height, 6, 3), 255, np.uint8)
    return np.concatenate([padded[0], gap, padded[1]], axis=1)
