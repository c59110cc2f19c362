"""The tables of `segjax compare`: terminal, Markdown, CSV and LaTeX."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from segjax import metrics
from segjax.cli import tables
from segjax.run_folder import results

Groups = Mapping[str, Sequence[results.RunResult]]

_HEAD = ("mean ± std", "95 % interval", "difference", "its interval", "p")


@dataclasses.dataclass(frozen=True)
class Row:
    """One group.

    Attributes:
        name: Of the group.
        values: The score of each seed; NaN where it has none.
        mean: Over seeds, with its interval.
        std: With N - 1 in the denominator.
        difference: To the first group; None for that group itself.
        is_best: Whether it is better than every other group.
    """

    name: str
    values: np.ndarray
    mean: metrics.Interval
    std: float
    difference: metrics.Difference | None
    is_best: bool


@dataclasses.dataclass(frozen=True)
class Compared:
    """All groups by one metric.

    Attributes:
        metric: Its name.
        split: The split that was scored.
        lower_is_better: Of the metric.
        rows: One a group.
    """

    metric: str
    split: str
    lower_is_better: bool
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """The metric, which direction is better, and the split."""
        better = "lower" if self.lower_is_better else "higher"
        return f"{self.metric} ({better} is better), {self.split}"

    @property
    def panel(self) -> dict[str, tuple[np.ndarray, float, float, float]]:
        """By group: the scores of its seeds, their mean and its interval."""
        return {
            row.name: (
                row.values[~np.isnan(row.values)],
                *(row.mean.value, row.mean.low, row.mean.high),
            )
            for row in self.rows
        }


def compared(
    groups: Groups, metric: str, test: metrics.Test, *, lower_is_better: bool
) -> Compared:
    """Computes means, intervals and differences of one metric.

    Args:
        groups: Runs by the name of their group, as `results.grouped` has them.
        metric: The metric.
        test: Of differences.
        lower_is_better: Of the metric.
    """
    values = [
        np.array([run.metrics.get(metric, math.nan) for run in group], np.float64)
        for group in groups.values()
    ]
    to_first = [(i, 0) for i in range(1, len(values))]
    differences = metrics.corrected_differences(values, to_first, test)
    best = metrics.best_group(values, test, lower_is_better=lower_is_better)
    rows = []
    for i, (name, x) in enumerate(zip(groups, values, strict=True)):
        seen = x[~np.isnan(x)]
        std = float(seen.std(ddof=1)) if seen.size > 1 else math.nan
        difference = differences[i - 1] if i else None
        mean = metrics.mean_interval(x)
        rows.append(Row(name, x, mean, std, difference, i == best))
    split = next(iter(groups.values()))[0].split
    return Compared(metric, split, lower_is_better, rows)


def for_terminal(one: Compared) -> Table:
    """A table; the group that is better than every other one is bold."""
    table = Table(title=Text(one.title), title_justify="left")
    table.add_column("group")
    for name in ("n", *_HEAD):
        table.add_column(name, justify="right")
    for row in one.rows:
        style = "bold" if row.is_best else ""
        table.add_row(*(Text(cell, style=style) for cell in _cells(row)))
    return table


def explained(test: metrics.Test) -> str:
    """Says what the columns are."""
    paired = test is metrics.paired_difference
    kind = "paired by seed" if paired else "of independent groups (Welch)"
    return (
        f"n seeds. Differences to the first group, t-test {kind}; p by Holm's "
        f"correction, intervals hold all differences at once in 95 %. Bold: better "
        f"than every other group (p < 0.05, all pairs)."
    )


def markdown(comparisons: Sequence[Compared], test: metrics.Test) -> str:
    """All tables in Markdown, and what the columns are."""
    lines = []
    for one in comparisons:
        lines += [f"### {one.title}", "", _line(["group", "n", *_HEAD])]
        lines.append(_line(["---", *["---:"] * (1 + len(_HEAD))]))
        for row in one.rows:
            cells = [cell.replace("|", "\\|") for cell in _cells(row)]
            bold = [f"**{c}**" if c and row.is_best else c for c in cells]
            lines.append(_line(bold))
        lines.append("")
    return "\n".join([*lines, explained(test), ""])


def csv_text(comparisons: Sequence[Compared]) -> str:
    """One line a group and metric; numbers with all their digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ("difference", "difference_low", "difference_high", "p_holm")
    writer.writerow(
        ["metric", "split", "group", "n", "mean", "std", "low", "high", *names, "best"]
    )
    for one in comparisons:
        for row in one.rows:
            d = row.difference
            found = ("",) * 4 if d is None else (d.value, d.low, d.high, d.p_value)
            mean = (row.mean.n, row.mean.value, row.std, row.mean.low, row.mean.high)
            cells = (one.metric, one.split, row.name, *mean, *found, int(row.is_best))
            writer.writerow([tables.cell(cell) for cell in cells])
    return stream.getvalue()


def latex(comparisons: Sequence[Compared]) -> str:
    r"""One `tabular` with a column a metric, for the package booktabs."""
    columns = "l" + "r" * len(comparisons)
    arrow = {True: r"$\downarrow$", False: r"$\uparrow$"}
    head = [f"{_tex(c.metric)} {arrow[c.lower_is_better]}" for c in comparisons]
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(["", *head]) + r" \\", r"\midrule"]
    for rows in zip(*(c.rows for c in comparisons), strict=True):
        cells = [_tex_cell(row) for row in rows]
        lines.append(" & ".join([_tex(rows[0].name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cells(row: Row) -> list[str]:
    d = row.difference
    mean, std = f"{row.mean.value:.4f}", row.std
    cells = [
        row.name,
        str(row.mean.n),
        mean if math.isnan(std) else f"{mean} ± {std:.4f}",
        _interval(row.mean.low, row.mean.high, ".4f"),
    ]
    if d is None:
        return [*cells, "", "", ""]
    p = "" if math.isnan(d.p_value) else f"{d.p_value:.2g}"
    return [*cells, f"{d.value:+.4f}", _interval(d.low, d.high, "+.4f"), p]


def _interval(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f"{low:{form}} to {high:{form}}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tex_cell(row: Row) -> str:
    std = "" if math.isnan(row.std) else rf" \pm {row.std:.4f}"
    number = f"{row.mean.value:.4f}{std}"
    return rf"$\mathbf{{{number}}}$" if row.is_best else f"${number}$"


def _tex(text: str) -> str:
    special = {c: rf"\{c}" for c in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    special["^"] = r"\textasciicircum{}"
    return "".join(special.get(c, c) for c in text)
