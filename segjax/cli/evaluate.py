"""`segjax evaluate RUN [--split test]`."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from segjax import terminal, viz
from segjax import train as training
from segjax.cli import evaluate_images, pictures, runs, usage

_SCORE_WIDTH = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Flags of `segjax evaluate` beside those of the experiment.

    Attributes:
        split: The split to evaluate; by default test, if the data has one.
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
    data, size = run.experiment.data, run.experiment.config.batch_size
    split = run.options.split or training.final_split(data.splits)
    step = int(run.state.step)
    metric, objective = run.experiment.metric, run.experiment.objective
    scores = evaluate_images.ImageScores(metric, objective, step=step)
    evaluate = training.evaluator(
        dataclasses.replace(run.experiment, metric=scores.metric())
    )
    metrics = evaluate(run.state, data.eval_batches(split, batch_size=size))
    path = folder / f"evaluation-{split}-{run.options.checkpoint}.json"
    training.write_json(
        path,
        {
            "metrics": metrics,
            "split": split,
            "examples": data.num_examples(split),
            "checkpoint": run.options.checkpoint,
            "step": step,
            "data": data.fingerprint(),
        },
    )
    console = terminal.console()
    console.print(
        _whole(metrics, f"{folder.name}: {training.split_title(split)}, step {step}")
    )
    console.print(_by_class(metrics, data.classes, width=console.width))
    written = [path, _write_images(run, split, scores, path.with_suffix(".csv"))]
    for made in written:
        console.print(f"Written: {made}", soft_wrap=True)
    with pictures.optional_report():
        pictures.write_report(folder)


def _write_images(
    run: runs.Run,
    split: str,
    scores: evaluate_images.ImageScores,
    path: pathlib.Path,
) -> pathlib.Path:
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
        chosen[index] = f"{split}, {viz.title(by)} {value}"
    pictures.draw_worst(experiment, run.state, run.folder, split, chosen)
    return path


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
