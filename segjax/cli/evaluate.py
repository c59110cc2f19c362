"""`segjax evaluate RUN [--split test]`."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segjax import train as training
from segjax.cli import pictures, runs, usage


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
    evaluate = training.evaluator(run.experiment)
    metrics = evaluate(run.state, data.eval_batches(split, batch_size=size))
    step = int(run.state.step)
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
    console = Console()
    console.print(_whole(metrics, f"{folder.name}: {split}, step {step}"))
    console.print(_by_class(metrics, data.classes))
    console.print(f"Written: {path}", soft_wrap=True, highlight=False, markup=False)
    with pictures.optional_report():
        pictures.write_report(folder)


def _whole(metrics: Mapping[str, float], title: str) -> Table:
    """A table of the metrics over all classes."""
    table = Table("metric", title=Text(title))
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        if "/" not in name or name.startswith("loss/"):
            table.add_row(Text(name), f"{value:.4f}")
    return table


def _by_class(metrics: Mapping[str, float], classes: Sequence[str]) -> Table:
    """A table with one row per class and one column per metric, such as iou."""
    heads = dict.fromkeys(n.partition("/")[0] for n in metrics if "/" in n)
    heads = [h for h in heads if any(f"{h}/{c}" in metrics for c in classes)]
    table = Table("class")
    for head in heads:
        table.add_column(Text(head), justify="right")
    for name in classes:
        values = (metrics.get(f"{head}/{name}") for head in heads)
        table.add_row(Text(name), *("" if v is None else f"{v:.4f}" for v in values))
    return table
