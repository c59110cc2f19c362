"""`segjax inspect RUN [--split train] [--by gradient]`."""

import csv
import dataclasses
import io
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from PIL import Image
from rich.progress import track
from rich.table import Table

from segjax import inference, optional, terminal, viz
from segjax import train as training
from segjax.cli import pictures, runs, tables, usage
from segjax.compiler import compiler_options
from segjax.errors import UserError
from segjax.files import writing
from segjax.typing import Batch

By = Literal["loss", "gradient"]
Columns = Mapping[str, Any]
"""A sequence a column of the table, by name, in the order of the ranking."""

_COLUMN = {"loss": "loss", "gradient": "gradient_norm"}
_PRINTED = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Flags of `segjax inspect` beside those of the experiment.

    Attributes:
        split: The split whose images are ranked.
        top: The number of images to draw.
        by: Rank by an image's loss, or by the norm of the gradient of its loss with
            respect to all parameters.
        checkpoint: The best checkpoint by the monitored metric, or the last one.
    """

    split: str = "train"
    top: int = 32
    by: By = "loss"
    checkpoint: runs.Which = "best"


def main(args: Sequence[str]) -> None:
    """Ranks the images of a split, so that mislabeled ones surface."""
    usage.print_if_asked(
        args,
        "segjax inspect RUN",
        InspectOptions,
        runs.TrustOptions,
        note=usage.OF_EXPERIMENT,
    )
    # Missing before all images are scored, not after it.
    optional.require("jinja2", extra="report", purpose="inspections")
    folder = runs.folder_argument(args, "inspect")
    run = runs.load(folder, InspectOptions, args[1:], prog=f"segjax inspect {folder}")
    options: InspectOptions = run.options
    if options.top < 1:
        raise UserError(f"--top must be at least 1, got {options.top}.")
    scores = _scores(run)
    order = inference.ranked(scores[_COLUMN[options.by]])
    name_of = pictures.example_names(run.experiment.data, options.split)
    names = [name_of(index) for index in scores["index"][order].tolist()]
    columns = {"index": scores["index"][order], "name": names}
    columns |= {name: scores[name][order] for name in _score_names(scores)}
    stem = folder / f"inspection-{options.split}-{options.checkpoint}"
    _write_csv(stem.with_suffix(".csv"), columns)
    _draw(run, columns, stem)
    console = terminal.console()
    title = f"{folder.name}: {options.split}, step {int(run.state.step)}"
    console.print(_table(columns, title))
    if "gradient_norm" not in columns:
        print("No gradient norms: the model has batch norm, and an example's gradient")
        print("is not defined by the example alone.")
    for suffix in ("csv", "png", "html"):
        path = stem.with_suffix(f".{suffix}")
        console.print(f"Written: {path}", soft_wrap=True, highlight=False)


def _scores(run: runs.Run) -> dict[str, np.ndarray]:
    """Computes index, loss and, if defined, gradient norm of each image."""
    experiment, data, options = run.experiment, run.experiment.data, run.options
    variables = training.variables(run.state)
    build = inference.make_example_scores
    if options.by == "loss" and inference.has_batch_statistics(variables):
        build = inference.make_example_losses
    score = build(experiment.forward, experiment.objective, step=int(run.state.step))
    # One at a time on a CPU: see make_example_scores.
    size = 1 if jax.default_backend() == "cpu" else experiment.config.batch_size
    total = -(-data.num_examples(options.split) // size)
    batches = data.eval_batches(options.split, batch_size=size)
    batches = track(batches, "Scoring", total, transient=True)
    return inference.score_examples(
        jax.jit(score, compiler_options=compiler_options()), variables, batches
    )


def _score_names(scores: Columns) -> list[str]:
    """Names of the loss, its terms and the gradient norm."""
    losses = sorted(name for name in scores if name.startswith("loss"))
    return [*losses, *(name for name in scores if name == "gradient_norm")]


def _write_csv(path: pathlib.Path, columns: Columns) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["rank", *map(tables.cell, columns)])
    for rank, row in enumerate(zip(*columns.values(), strict=True), start=1):
        writer.writerow([rank, *(tables.cell(value) for value in row)])
    writing.write_bytes(path, text.getvalue().encode())


def _draw(run: runs.Run, columns: Columns, stem: pathlib.Path) -> None:
    """Draws the highest ranked images as a PNG sheet and an HTML page."""
    options = run.options
    palette = viz.palette(len(run.experiment.data.classes))
    cards, legends = zip(*_cards(run, columns, palette), strict=True)
    classes = legends[0]
    sheet = viz.inspection_sheet(cards, classes, palette=palette)
    with writing.atomic(stem.with_suffix(".png")) as temporary:
        Image.fromarray(sheet).save(temporary, "PNG")
    column = _COLUMN[options.by]
    name = run.folder.resolve().name
    with writing.atomic(stem.with_suffix(".html")) as temporary:
        viz.write_inspection(
            temporary,
            cards,
            classes,
            palette=palette,
            title=f"{name}: {options.split} images by {options.by}",
            facts=[
                ("checkpoint", f"{options.checkpoint}, step {int(run.state.step)}"),
                ("shown", f"{len(cards)} of {len(columns['index'])}"),
                (f"median {_words(column)}", f"{np.median(columns[column]):.4g}"),
            ],
        )


def _cards(
    run: runs.Run, columns: Columns, palette: np.ndarray
) -> Iterator[tuple[viz.Card, tuple[str, ...]]]:
    """Yields a card for each of the highest ranked images, and its legend's classes."""
    draw = _drawer(run, palette)
    top = columns["index"][: run.options.top].tolist()
    data, split = run.experiment.data, run.options.split
    found = dict(pictures.find_examples(data, split, set(top)))
    shown = [n for n in ("loss", "gradient_norm") if n in columns]
    for rank, index in enumerate(top):
        name = columns["name"][rank]
        picture, classes = draw(found[index])
        card = viz.Card(
            title=f"{rank + 1}. {name or f'example {index}'}",
            note=", ".join(
                [
                    f"index {index}",
                    *(f"{_words(n)} {columns[n][rank]:.4g}" for n in shown),
                ]
            ),
            picture=picture,
        )
        yield card, classes


def _drawer(
    run: runs.Run, palette: np.ndarray
) -> Callable[[Batch], tuple[np.ndarray, tuple[str, ...]]]:
    """Builds `stored batch of one -> (image | truth | prediction, legend)`.

    Objects have no legend: each is drawn in its own color.
    """
    classes = run.experiment.data.classes
    variables = training.variables(run.state)
    predict = inference.make_predictor(run.experiment.forward, variables)

    def draw(batch: Batch) -> tuple[np.ndarray, tuple[str, ...]]:
        image, label, valid = pictures.unpadded(batch, 0)
        found = predict(image)
        if isinstance(found, dict):
            truth = pictures.true_objects(batch, 0)
            sure = inference.confident_objects(found)
            return viz.object_panels(image, truth, sure), ()
        predicted = inference.labels(found)
        picture = viz.panels(image, label, predicted, palette=palette, valid=valid)
        return picture, tuple(classes)

    return draw


def _table(columns: Columns, title: str) -> Table:
    """A table of the highest ranked images."""
    table = Table("rank", title=title)
    for name in columns:
        justify = "left" if name == "name" else "right"
        table.add_column(_words(name), justify=justify)
    rows = itertools.islice(zip(*columns.values(), strict=True), _PRINTED)
    for rank, row in enumerate(rows, start=1):
        texts = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in row)
        table.add_row(str(rank), *texts)
    return table


def _words(column: str) -> str:
    return column.replace("_", " ")
