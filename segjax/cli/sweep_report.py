"""What a sweep has found: a table, a CSV and a figure."""

import csv
import dataclasses
import io
from typing import Any

from rich.table import Table
from rich.text import Text

from segjax import terminal, viz
from segjax.cli import pictures
from segjax.cli.sweep_trials import Plan
from segjax.files import writing

DATABASE = "sweep.db"
_ROWS = 10


@dataclasses.dataclass(frozen=True)
class Row:
    """A trial that has ended, or still runs.

    Attributes:
        number: From 0.
        state: complete, pruned, failed or running.
        value: Mean of the metric over the seeds; None if not complete.
        settings: What was searched.
        seconds: From start to end, of the last process; None while it runs.
        error: Why it failed.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]
    seconds: float | None
    error: str


def write(plan: Plan) -> dict[str, Any] | None:
    """Writes sweep.csv and sweep.png, and prints the best trials.

    Returns:
        The settings of the best trial; None if no trial is complete.
    """
    rows = rows_of(plan)
    writing.write_bytes(plan.folder / "sweep.csv", _csv(plan, rows).encode())
    complete = [row for row in rows if row.value is not None]
    complete.sort(key=lambda row: row.value or 0.0, reverse=plan.maximizes)
    console = terminal.console()
    seeds = f", mean of {len(plan.seeds)} seeds" if len(plan.seeds) > 1 else ""
    console.print(
        f"{plan.monitor} on {plan.split}{seeds}: the best trials",
        soft_wrap=True,
        markup=False,
    )
    console.print(_table(plan, complete))
    counts = ", ".join(
        f"{n} {state}"
        for state in ("complete", "pruned", "failed", "running")
        if (n := sum(row.state == state for row in rows))
    )
    console.print(f"{len(rows)} trials: {counts}.", markup=False)
    with pictures.optional_report():
        _draw(plan, rows)
    for name in ("sweep.csv", "sweep.png"):
        if (plan.folder / name).exists():
            console.print(
                f"Written: {plan.folder / name}", soft_wrap=True, markup=False
            )
    return complete[0].settings if complete else None


def rows_of(plan: Plan) -> list[Row]:
    """Reads all trials of the study, in order."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return [
        Row(
            trial.number,
            states.get(trial.state.name, "running"),
            trial.value if trial.state.name == "COMPLETE" else None,
            dict(trial.params),
            trial.duration.total_seconds() if trial.duration else None,
            trial.user_attrs.get("error", ""),
        )
        for trial in plan.study.get_trials(deepcopy=False)
    ]


def _csv(plan: Plan, rows: list[Row]) -> str:
    names = [d.name for d in plan.space]
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["trial", "state", plan.monitor, *names, "seconds", "error", "runs"])
    for row in rows:
        settings = [row.settings.get(name, "") for name in names]
        about = [row.seconds, row.error, plan.trial_folder(row.number).name]
        table.writerow([row.number, row.state, row.value, *settings, *about])
    return stream.getvalue()


def _table(plan: Plan, best: list[Row]) -> Table:
    table = Table("trial")
    for name in (plan.monitor, *(d.name for d in plan.space)):
        table.add_column(Text(name), justify="right")
    for row in best[:_ROWS]:
        settings = [_shown(row.settings[d.name]) for d in plan.space]
        table.add_row(str(row.number), f"{row.value:.4f}", *map(Text, settings))
    return table


def _draw(plan: Plan, rows: list[Row]) -> None:
    """Writes sweep.png, if a trial is complete."""
    complete = [row for row in rows if row.value is not None]
    if not complete:
        return
    settings = {d.name: [row.settings[d.name] for row in complete] for d in plan.space}
    picture = viz.sweep_trials(
        [row.number for row in complete],
        [row.value for row in complete if row.value is not None],
        settings,
        metric=plan.monitor,
        log={d.name for d in plan.space if getattr(d, "log", False)},
        maximize=plan.maximizes,
    )
    writing.write_bytes(plan.folder / "sweep.png", picture)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
