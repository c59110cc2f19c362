"""`segjax evaluate RUN [--split test]`."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from segjax import data, run_folder, terminal, viz
from segjax import train as training
from segjax.cli import evaluate_images, pictures, runs, usage
from segjax.errors import UserError

_ALL = "all"
_SCORE_WIDTH = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Flags of `segjax evaluate` beside those of the experiment.

    Attributes:
        split: The split to evaluate, or all of them together: all. By default test, if
            the data has one.
        checkpoint: The best checkpoint by the monitored metric, or the last one.
    """

    split: str | None = None
    checkpoint: runs.Which = "best"


def main(args: Sequence[str]) -> None:
    """Prints and writes the metrics of a run's checkpoint."""
    usage.print_if_asked(
        args,
        "segjax evaluate RUN",
        EvaluateOptions,
        runs.TrustOptions,
        note=usage.OF_EXPERIMENT,
    )
    folder = runs.folder_argument(args, "evaluate")
    run = runs.load(folder, EvaluateOptions, args[1:], prog=f"segjax evaluate {folder}")
    run = dataclasses.replace(run, experiment=_with_all(run.experiment))
    is_other = _is_other(run)
    split = _split(run, is_other=is_other)
    scores, metrics = _scores(run, split)
    path = folder / f"evaluation-{split}-{run.options.checkpoint}.json"
    title, caption = training.split_title(split), split
    if is_other:  # Not the files that `segjax compare` reads.
        title = caption = f"other data, {split}"
        path = path.with_stem(f"{path.stem}-{run.experiment.data.fingerprint()}")
    _write_metrics(run, split, metrics, path)
    console = terminal.console()
    console.print(_whole(metrics, _line(run, split, title)))
    classes = run.experiment.data.classes
    console.print(_by_class(metrics, classes, width=console.width))
    table = path.with_suffix(".csv")
    _write_images(run, split, caption, scores, table)
    for made in (path, table):
        console.print(f"Written: {made}", soft_wrap=True)
    with pictures.optional_report():
        pictures.write_report(folder)


def _with_all(experiment: training.Experiment) -> training.Experiment:
    """Adds the split `all`, if the data are those of a `Pipeline`."""
    if not isinstance(experiment.data, data.Pipeline):
        return experiment
    whole = data.join_splits(experiment.data.dataset, _ALL)
    pipeline = dataclasses.replace(experiment.data, dataset=whole)
    return dataclasses.replace(experiment, data=pipeline)


def _is_other(run: runs.Run) -> bool:
    """Whether flags have changed the data since training."""
    found = run_folder.dataset_fingerprint(run.experiment.data)
    return found != run.manifest["data"]["dataset"]


def _split(run: runs.Run, *, is_other: bool) -> str:
    """The split to evaluate.

    Raises:
        ValueError: If none was asked for and the data are others. Their test split may
            be a random part of them, and the model has seen none of them.
    """
    splits = run.experiment.data.splits
    if run.options.split is None and is_other:
        raise UserError(
            f"These data are not those of {run.folder}. Which images are to be "
            f"scored? Give --split with one of {', '.join(splits[::-1])}."
        )
    own = [split for split in splits if split != _ALL]
    return run.options.split or training.final_split(own)


def _scores(
    run: runs.Run, split: str
) -> tuple[evaluate_images.ImageScores, dict[str, float]]:
    """Evaluates; the scores of images and those of the split."""
    experiment, step = run.experiment, int(run.state.step)
    size = experiment.config.batch_size
    scores = evaluate_images.ImageScores(
        experiment.metric, experiment.objective, step=step
    )
    evaluate = training.evaluator(
        dataclasses.replace(experiment, metric=scores.metric())
    )
    batches = experiment.data.eval_batches(split, batch_size=size)
    return scores, evaluate(run.state, batches)


def _write_metrics(
    run: runs.Run, split: str, metrics: Mapping[str, float], path: pathlib.Path
) -> None:
    evaluated = run.experiment.data
    training.write_json(
        path,
        {
            "metrics": metrics,
            "split": split,
            "examples": evaluated.num_examples(split),
            "checkpoint": run.options.checkpoint,
            "step": int(run.state.step),
            "data": evaluated.fingerprint(),
        },
    )


def _line(run: runs.Run, split: str, title: str) -> str:
    count = run.experiment.data.num_examples(split)
    images = "1 image" if count == 1 else f"{count} images"
    return f"{run.folder.name}: {title}, {images}, step {int(run.state.step)}"


def _write_images(
    run: runs.Run,
    split: str,
    caption: str,
    scores: evaluate_images.ImageScores,
    path: pathlib.Path,
) -> None:
    """Writes the table of images, and pictures of the worst ones for the report."""
    experiment = run.experiment
    config = experiment.config
    by, order = evaluate_images.ranked(
        scores.by_index, monitor=config.monitor, mode=config.mode
    )
    names = pictures.example_names(experiment.data, split)
    evaluate_images.write_csv(path, scores.by_index, order, names)
    chosen = {}
    for index in order[: config.samples]:
        value = viz.format_score(scores.by_index[index].get(by, math.nan))
        chosen[index] = f"{caption}, {viz.title(by)} {value}"
    pictures.draw_worst(experiment, run.state, run.folder, split, chosen)


def _whole(metrics: Mapping[str, float], title: str) -> Table:
    """A table of the metrics over all classes."""
    table = Table("metric", title=Text(title))
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        if "/" not in name or name.startswith("loss/"):
            table.add_row(Text(name), viz.format_score(value))
    return table


def _by_class(
    metrics: Mapping[str, float], classes: Sequence[str], *, width: int
) -> Table:
    """A table with one row per class and one column per metric, such as iou.

    Columns that do not fit into the width are left out; the files have all.
    """
    heads = dict.fromkeys(n.partition("/")[0] for n in metrics if "/" in n)
    heads = [h for h in heads if any(f"{h}/{c}" in metrics for c in classes)]
    left = width - max(map(len, ("class", *classes))) - 4
    shown = []
    for head in heads:
        left -= max(len(head), _SCORE_WIDTH) + 3
        if left >= 0 or not shown:
            shown.append(head)
    table = Table()
    table.add_column("class", no_wrap=True)
    for head in shown:
        table.add_column(Text(head), justify="right")
    for name in classes:
        values = (metrics.get(f"{head}/{name}") for head in shown)
        cells = ("" if v is None else viz.format_score(v) for v in values)
        table.add_row(Text(name), *cells)
    return table
