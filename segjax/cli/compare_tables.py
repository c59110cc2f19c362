"""The tables of `segjax compare`: terminal, Markdown, CSV and LaTeX."""

import csv
import io
import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from segjax import metrics
from segjax.cli import tables
from segjax.cli.compare_groups import Compared, Row

_HEAD = ("mean ± std", "95 % interval", "difference", "its interval", "p")


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


def explained(test: metrics.Test, *, folds: bool = False) -> str:
    """Says what the columns are."""
    paired = test is metrics.paired_difference
    by = "seed and fold" if folds else "seed"
    kind = f"paired by {by}" if paired else "of independent groups (Welch)"
    what = "seeds and folds" if folds else "seeds"
    about = (
        f"n {what}, or images (their means over seeds, paired by image). Differences "
        f"to the first group, t-test {kind}; p by Holm's correction, intervals hold "
        f"all differences at once in 95 %. Bold: better than every other group "
        f"(p < 0.05, all pairs)."
    )
    overlap = (
        " Folds share most of their training images, so intervals are too narrow and p "
        "is too small."
    )
    return about + overlap if folds else about


def markdown(comparisons: Sequence[Compared], about: str) -> str:
    """All tables in Markdown, and a line about their columns."""
    lines = []
    for one in comparisons:
        lines += [f"### {one.title}", "", _line(["group", "n", *_HEAD])]
        lines.append(_line(["---", *["---:"] * (1 + len(_HEAD))]))
        for row in one.rows:
            cells = [cell.replace("|", "\\|") for cell in _cells(row)]
            bold = [f"**{c}**" if c and row.is_best else c for c in cells]
            lines.append(_line(bold))
        lines.append("")
    return "\n".join([*lines, about, ""])


def csv_text(comparisons: Sequence[Compared]) -> str:
    """One line a group and metric; numbers with all their digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ("difference", "difference_low", "difference_high", "p_holm")
    writer.writerow(
        [
            "metric",
            "split",
            "over",
            "group",
            "n",
            "mean",
            "std",
            "low",
            "high",
            *names,
            "best",
        ]
    )
    for one in comparisons:
        for row in one.rows:
            d = row.difference
            found = ("",) * 4 if d is None else (d.value, d.low, d.high, d.p_value)
            mean = (row.mean.n, row.mean.value, row.std, row.mean.low, row.mean.high)
            cells = (
                one.metric,
                one.split,
                one.over,
                row.name,
                *mean,
                *found,
                int(row.is_best),
            )
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
