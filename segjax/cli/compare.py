"""`segjax compare RUN... [--metric NAME ...] [--out DIR]`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich.console import Console

from segjax import metrics, terminal, viz
from segjax.cli import compare_groups, compare_tables, flags, pictures
from segjax.errors import UserError
from segjax.files import writing
from segjax.run_folder import results


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Flags of `segjax compare`.

    Attributes:
        runs: Run folders, or folders of runs, such as those of segjax seeds. Runs that
            differ in --seed and --fold only are one group; the first group is the
            baseline.
        metric: What is compared; by default the metric that chose the checkpoints.
        lower: Metrics of which lower values are better, such as hd95; of the default
            metric it is known.
        paired: Insist on pairs: all groups must have the same seeds and folds. Where
            they have, differences are paired without this flag too.
        images: Compare over images too, which says whether a difference would hold on
            other images. Needs segjax evaluate of each run.
        out: A folder for compare.md, compare.csv, compare.tex and compare.png.
    """

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    metric: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    paired: bool = False
    images: bool = False
    out: pathlib.Path | None = None


def main(args: Sequence[str]) -> None:
    """Prints a table of means over seeds and of what their differences are worth."""
    options = flags.read(CompareOptions, args, prog="segjax compare")
    if not options.runs:
        raise UserError(
            "segjax compare needs run folders. Try segjax compare runs/one runs/other."
        )
    runs = [results.read(folder) for folder in results.find(options.runs)]
    groups = results.grouped(runs)
    _check_alike(runs)
    names = options.metric or tuple(dict.fromkeys(run.monitor for run in runs))
    lower = _lower(runs, names, options.lower)
    test = _test(groups, options.paired)
    comparisons = [
        compare_groups.compared(groups, name, test, lower_is_better=name in lower)
        for name in names
    ]
    if options.images:
        comparisons += [
            compare_groups.compared_over_images(
                groups, name, lower_is_better=name in lower
            )
            for name in names
        ]
    console = terminal.console()
    for one in comparisons:
        console.print(compare_tables.for_terminal(one))
    about = compare_tables.explained(test, folds=len({run.fold for run in runs}) > 1)
    console.print(about)
    if options.out is not None:
        _write(options.out, comparisons, about, console)


def _check_alike(runs: Sequence[results.RunResult]) -> None:
    splits = dict.fromkeys(run.split for run in runs)
    if len(splits) > 1:
        raise UserError(
            f"segjax compare needs results of one split, got {', '.join(splits)}. "
            f"Compare them separately."
        )
    firsts: dict[int | None, results.RunResult] = {}  # Each fold has data of its own.
    for run in runs:
        first = firsts.setdefault(run.fold, run)
        if run.data != first.data:
            raise UserError(
                f"{first.folder} and {run.folder} were trained and scored on other "
                f"data ({first.data}, {run.data}). Compare runs of the same data."
            )


def _lower(
    runs: Sequence[results.RunResult], names: Sequence[str], given: Sequence[str]
) -> set[str]:
    """The metrics of which lower values are better; checks all names."""
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    for name in (*names, *given):
        if name not in known:
            some = ", ".join(n for n in known if "/" not in n)
            raise UserError(f"No run has the metric {name}. They have {some}.")
    monitored = {run.monitor for run in runs if run.lower_is_better}
    return set(given) | (monitored & set(names))


def _test(groups: compare_groups.Groups, paired: bool) -> metrics.Test:
    seeds = [[run.pair for run in group] for group in groups.values()]
    alike = all(one == seeds[0] for one in seeds)
    if paired and not alike:
        said = "; ".join(
            f"{name} has {', '.join(map(_pair_name, one))}"
            for name, one in zip(groups, seeds, strict=True)
        )
        raise UserError(
            f"--paired needs the same seeds and folds in all groups: {said}. Train the "
            f"missing ones, or leave --paired out."
        )
    return metrics.paired_difference if alike else metrics.welch_difference


def _pair_name(pair: tuple[int, int]) -> str:
    seed, fold = pair
    return str(seed) if fold < 0 else f"{seed} (fold {fold})"


def _write(
    out: pathlib.Path,
    comparisons: Sequence[compare_groups.Compared],
    about: str,
    console: Console,
) -> None:
    """Writes the tables and the figure, whole files only."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "compare.md": compare_tables.markdown(comparisons, about),
        "compare.csv": compare_tables.csv_text(comparisons),
        "compare.tex": compare_tables.latex(comparisons),
    }
    for name, text in texts.items():
        writing.write_bytes(out / name, text.encode())
    with pictures.optional_report():
        panels = {one.title: one.panel for one in comparisons}
        writing.write_bytes(out / "compare.png", viz.group_intervals(panels))
    for name in (*texts, "compare.png"):
        if (out / name).exists():
            console.print(f"Written: {out / name}", soft_wrap=True)
