"""`segjax data show SOURCE`: a report of a data set, before training."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import tyro
from rich.progress import Progress

from segjax import data, experiments, terminal, train, viz
from segjax.cli import data_findings, data_pictures, flags, own_data, own_plans, scripts
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
        experiment: A script whose training crops are drawn, augmented, with its default
            settings; for a folder, by default, those that segjax train --data uses.
        out: The report; NAME-data.html by default.
        most: The largest number of images of a split that are read; of more, evenly
            spaced ones.
    """

    what: Annotated[str, tyro.conf.Positional]
    source: pathlib.Path | None = None
    experiment: pathlib.Path | None = None
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
    dataset, settings, experiment = _opened(options, named)
    if options.experiment is not None:
        experiment = _of_script(options, named)
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
        sections=_sections(found, dataset, experiment),
    )
    out = options.out or pathlib.Path(f"{name}-data.html")
    writing.write_bytes(out, viz.render_data_report(report).encode())
    for text in report.findings or ["Nothing unusual was found."]:
        terminal.console().print(f"- {text}", soft_wrap=True)
    terminal.console().print(f"Report: {out}", soft_wrap=True)


def _opened(
    options: ShowOptions, named: Mapping[str, Callable[..., data.Dataset]]
) -> tuple[data.Dataset, list[tuple[str, str]], train.Experiment | None]:
    """Returns the data set, and for a folder the settings that training would choose.

    Returns:
        (the data set, lines about the settings, the experiment with them or None).
    """
    path = pathlib.Path(options.what)
    if options.what in named and not path.exists():
        if options.source is None:
            return named[options.what](), [], None
        return named[options.what](options.source), [], None
    if not path.exists():
        raise UserError(
            f"{path} is missing: needed a folder, or one of {', '.join(named)}."
        )
    if own_data.task_of(path, []) == "instance":
        build, plan = experiments.mask_rcnn.experiment, own_plans.detector
        dataset = experiments.mask_rcnn.dataset(path)
    else:
        build, plan = experiments.unet.experiment, own_plans.semantic
        dataset = data.folder(path)
    made, lines = plan(_defaults(build, path), {})
    experiment = None
    if options.experiment is None:  # Else that of the script is built in its place.
        experiment = scripts.construct(build, {"source": path, **made})
    return dataset, [(name, text) for name, text, _ in lines], experiment


def _of_script(
    options: ShowOptions, named: Mapping[str, Callable[..., data.Dataset]]
) -> train.Experiment:
    """Builds the experiment of a script with its defaults and the source."""
    assert options.experiment is not None
    build = scripts.load(options.experiment)
    parameters = inspect.signature(build).parameters
    path = pathlib.Path(options.what)
    is_named = options.what in named and not path.exists()
    source = options.source if is_named else path
    given = {"source": source} if source and "source" in parameters else {}
    missing = [
        f"--{name.replace('_', '-')}"
        for name, p in parameters.items()
        if p.default is p.empty and name not in given
    ]
    if missing:
        raise UserError(
            f"{options.experiment} needs {', '.join(missing)}, which segjax data show "
            f"does not pass on. Give it a default, or pass --source."
        )
    return scripts.construct(build, given)


def _defaults(build: Callable, source: pathlib.Path) -> dict[str, Any]:
    """The keywords of an experiment, with its defaults."""
    found = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in found} | {"source": source}


def _sections(
    found: survey.Survey, dataset: data.Dataset, experiment: train.Experiment | None
) -> list[tuple[str, str, list[viz.Figure]]]:
    """Pictures: the same image in two splits, doubtful masks, and a sample."""
    colors = viz.palette(max(len(found.classes), 1))

    def example(one: survey.Seen) -> Mapping[str, Any]:
        return dataset.splits[one.place.split][one.place.number]

    def drawn(one: survey.Seen, note: str = "") -> viz.Figure:
        title = f"{one.place.split}: {one.place.name}"
        return viz.Figure(data_pictures.overlay(example(one), colors), title, note)

    leaks = []
    for pair in found.leaks[:_DOUBTFUL]:
        sides = [found.seen[i] for i in (pair.first, pair.second)]
        pictures = [viz.to_rgb(np.asarray(example(s)["image"])) for s in sides]
        title = ", ".join(f"{s.place.split}: {s.place.name}" for s in sides)
        note = "equal" if pair.exact else f"correlation {pair.correlation:.4f}"
        leaks.append(viz.Figure(data_pictures.beside(*pictures), title, note))
    doubtful = [
        drawn(one, f"fits better {data_findings.direction(one.alignment.shift)}")
        for one in found.shifted[:_DOUBTFUL]
        if one.alignment is not None
    ]
    crops = []
    if experiment is not None:
        try:
            crops = data_pictures.training_crops(experiment, colors)
        except UserError as error:  # The rest of the report does not need them.
            text = f"Training crops cannot be drawn: {error}"
            terminal.console(stderr=True).print(text, soft_wrap=True)
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
        (
            "Training crops",
            "As the network sees them: preprocessed and augmented. Padding around "
            "crops that are shrunk or larger than their image is ignored.",
            crops,
        ),
    ]
