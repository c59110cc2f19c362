"""Trains the runs of a table and compares them: what the scripts here have in common.

Runs that exist are kept and interrupted ones resumed, so that a table is made in as
many sittings as it takes. Runs are those of `segjax train`, the comparison that of
`segjax compare`.
"""

import argparse
import csv
import dataclasses
import importlib
import math
import pathlib
import shlex
import statistics
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator, Sequence

import segjax

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[1]
SEGJAX = (sys.executable, "-m", "segjax")


@dataclasses.dataclass(frozen=True)
class Row:
    """One experiment of a table.

    Attributes:
        name: Name of the folder of its runs.
        script: Name of its file in experiments/.
        flags: What it is trained with, besides source and seed.
        steps: Updates, if not the script's default; a fifth of them with --quick.
    """

    name: str
    script: str
    flags: tuple[str, ...] = ()
    steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """What is trained and how it is compared.

    Attributes:
        name: Of its files.
        rows: The experiments, the baseline first.
        metrics: What is compared, the most important first.
        seeds: Of each row.
        quick: Flags that make a run take a fifth of the time, of rows without `steps`.
        lower: Metrics of which lower values are better.
        published: Lines of Markdown about others' figures, with their sources.
        each: The flag that takes the seed, or the fold.
    """

    name: str
    rows: Sequence[Row]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    quick: tuple[str, ...]
    lower: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    each: str = "--seed"


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a table's command.

    Attributes:
        source: Folder of the data.
        runs: Folder of the runs, one folder a row.
        out: Folder of the table's files.
        quick: Whether runs take a fifth of the time.
        seeds: The seeds, or folds.
        only: Names of the rows to make.
        dry_run: Whether commands are printed only.
    """

    source: pathlib.Path
    runs: pathlib.Path
    out: pathlib.Path
    quick: bool
    seeds: tuple[int, ...]
    only: tuple[str, ...]
    dry_run: bool


def script(name: str) -> types.ModuleType:
    """Imports an experiment, for its functions."""
    if str(EXPERIMENTS) not in sys.path:
        sys.path.insert(0, str(EXPERIMENTS))
    return importlib.import_module(name)


def options(table: Table, doc: str | None, args: Sequence[str] | None) -> Options:
    """Reads the options of the command."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [row.name for row in table.rows]
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=pathlib.Path, default=f"runs/{table.name}")
    parser.add_argument("--out", type=pathlib.Path, default=EXPERIMENTS / "tables")
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    parser.add_argument("--seeds", type=int, nargs="+", default=table.seeds)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    given = vars(parser.parse_args(args))
    given |= {k: tuple(given[k]) for k in ("seeds", "only")}
    if given["quick"]:
        given["runs"] = given["runs"].with_name(f"{given['runs'].name}-quick")
    return Options(**given)


def trained(table: Table, chosen: Options) -> list[Row]:
    """Trains what is missing, one seed of all rows after the other.

    Returns:
        The rows that were asked for; none after a dry run.
    """
    rows = [row for row in table.rows if row.name in chosen.only]
    if not chosen.dry_run:
        chosen.out.mkdir(parents=True, exist_ok=True)  # Before hours of training.
    for seed in chosen.seeds:
        for row in rows:
            run = run_folder(chosen, row, seed)
            if (run / "result.json").exists():
                continue
            args = [*command(table, chosen, row, seed), "--run", str(run)]
            args += ["--resume"] if (run / "run.json").exists() else []
            print(shlex.join(["segjax", *args]), flush=True)
            if not chosen.dry_run:
                _run(args, run.with_name(f"{run.name}.log"))
    return [] if chosen.dry_run else rows


def run_folder(chosen: Options, row: Row, seed: int) -> pathlib.Path:
    """The folder of one run."""
    return chosen.runs / row.name / f"seed-{seed}"


def command(table: Table, chosen: Options, row: Row, seed: int | str) -> list[str]:
    """The arguments of segjax that train a run, without its folder."""
    args = ["train", str(EXPERIMENTS / row.script), "--source", str(chosen.source)]
    steps = table.quick if chosen.quick else ()
    if row.steps is not None:
        steps = ("--steps", str(row.steps // 5 if chosen.quick else row.steps))
    return [*args, *row.flags, *steps, table.each, str(seed)]


def published_command(table: Table, chosen: Options, row: Row, seed: str) -> list[str]:
    """The command of a row, with DIR for the folder of the data."""
    args = command(table, chosen, row, seed)
    args[1] = f"experiments/{row.script}"
    args[args.index("--source") + 1] = "DIR"
    return ["segjax", *args]


def _run(args: Sequence[str], log: pathlib.Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run([*SEGJAX, *args], stdout=file, stderr=file, check=False)
    if done.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        sys.exit(f"{log}: {''.join(last)}")


def main(table: Table, doc: str | None, args: Sequence[str] | None = None) -> None:
    """Trains what is missing, and writes the table as NAME.md, .csv, .tex and .png."""
    chosen = options(table, doc, args)
    rows = trained(table, chosen)
    if not rows:
        return
    path = written(table, chosen, ".md")
    folders = [str(run_folder(chosen, r, s)) for r in rows for s in chosen.seeds]
    flags = ["--metric", *table.metrics]
    flags += ["--lower", *table.lower] if table.lower else []
    made = chosen.out / f".{path.stem}"
    run = [*SEGJAX, "compare", *folders, *flags, "--out", str(made)]
    subprocess.run(run, check=True)
    for file in sorted(made.iterdir()):
        file.rename(written(table, chosen, file.suffix))
    made.rmdir()
    lines = [*about_rows(table, chosen, rows), path.read_text()]
    path.write_text("\n".join(lines))
    print(f"Written: {path}")


def about_rows(table: Table, chosen: Options, rows: Sequence[Row]) -> Iterator[str]:
    """Yields a table in Markdown: row, first metric, hours, command; and others'."""
    name = table.metrics[0]
    what = table.each.removeprefix("--")
    cells = []
    for row in rows:
        runs = segjax.results(*(run_folder(chosen, row, s) for s in chosen.seeds))
        args = published_command(table, chosen, row, what.upper())
        hours = sum(run["seconds"] for run in runs) / 3600
        score = mean_and_deviation([run[name] for run in runs])
        shown = " ".join(map(str, chosen.seeds))
        line = (row.name, score, shown, f"{hours:.1f}", f"`{shlex.join(args)}`")
        cells.append(line)
    heads = ("row", name, f"{what}s", "hours for all", "command")
    yield from markdown(heads, cells)
    if table.published:
        yield "\nPublished:\n"
        yield from (f"- {line}" for line in table.published)
    yield ""


def written(table: Table, chosen: Options, suffix: str) -> pathlib.Path:
    """The file of the table with a suffix; quick runs have files of their own."""
    name = f"{table.name}-quick" if chosen.quick else table.name
    return chosen.out / f"{name}{suffix}"


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table in Markdown."""
    yield "| " + " | ".join(heads) + " |"
    yield "| --- " * len(heads) + "|"
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def write_csv(
    path: pathlib.Path, heads: Sequence[str], lines: Iterable[Sequence[object]]
) -> None:
    """Writes a table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(lines)


def mean_and_deviation(values: Sequence[float]) -> str:
    """`0.793 ± 0.002`; without the deviation for one value."""
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{mean:.4f}" + ("" if math.isnan(deviation) else f" ± {deviation:.4f}")
