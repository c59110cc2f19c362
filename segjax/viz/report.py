"""The report of a run: one self-contained HTML file."""

import base64
import importlib.resources
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segjax import optional
from segjax.errors import UserError
from segjax.run_folder import schema
from segjax.viz.curves import by_importance, curves, title
from segjax.viz.palette import palette

MAX_HEADLINES = 12
MAX_SAMPLES = 24


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report.html from the files of the run folder.

    Reads run.json (the manifest), metrics.jsonl, result.json and samples/*.png; missing
    parts are omitted. Without result.json, the metrics are those of the last
    evaluation.

    Args:
        run_dir: A run folder.

    Returns:
        The path of the report, which is written atomically.

    Raises:
        ValueError: If `run_dir` is not a folder, a JSON file in it is broken, or a
            package of the extra `report` is not installed.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise UserError(
            f"write_report needs a run folder, got {run_dir}. Pass the folder that "
            f"holds metrics.jsonl."
        )
    path = run_dir / "report.html"
    # In the same folder, since a rename is only atomic within one file system.
    temporary = run_dir / f".report.html.{os.getpid()}"
    try:
        _write(temporary, _render(run_dir))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:  # The error of a full disk does not name the file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl.

    Lines truncated by a killed process are skipped. A resumed run repeats the steps
    since its checkpoint: of records with the same kind, split and step, the last one is
    used.

    Args:
        path: The file; if it does not exist, there are no records.

    Returns:
        Records, sorted by step.
    """
    records = {}
    for record in schema.read_log_leniently(path):
        records[record["kind"], record.get("split"), record["step"]] = record
    return sorted(records.values(), key=lambda record: record["step"])


def _render(run_dir: Path) -> str:
    jinja2 = optional.require("jinja2", extra="report", purpose="the report")

    records = read_records(run_dir / "metrics.jsonl")
    result = _read_json(run_dir / "result.json", schema.Result)
    evaluated = [r for r in records if r.get("kind") == "eval"]
    last = evaluated[-1] if evaluated else {}
    metrics = result.get("metrics") or last
    split = result.get("split") or last.get("split")
    samples = sorted((run_dir / "samples").glob("*.png"))
    manifest = _read_json(run_dir / "run.json", schema.ShownManifest)
    monitor = (manifest.get("config") or {}).get("monitor")
    headlines = _headlines(metrics, monitor)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {"number": _number, "label": _label, "leaf": _leaf}
    source = importlib.resources.files("segjax.viz").joinpath("report.html")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        name=run_dir.resolve().name,
        facts=_facts(result, last, split),
        headlines=headlines[:MAX_HEADLINES],
        more=headlines[MAX_HEADLINES:],
        columns=_columns(metrics),
        rows=_rows(metrics),
        curves=curves(records, monitor=monitor),
        samples=[(p.stem, _data_uri(p)) for p in samples[-MAX_SAMPLES:]],
        calibration=_picture(run_dir / "calibration.png"),
        num_samples=len(samples),
        manifest=manifest,
    )


def _read_json(path: Path, kind: type) -> dict[str, Any]:
    """Reads an object from a file; empty if there is no file."""
    return schema.read(path, kind) if path.exists() else {}


def _facts(
    result: Mapping[str, Any], last: Mapping[str, Any], split: str | None
) -> list[tuple[str, str]]:
    """Returns facts of the run for the line below its name."""
    facts = {
        "split": split,
        "steps": result.get("steps", last.get("step")),
        "seed": _leaf(result["seed"]) if "seed" in result else None,
        "time": _duration(result.get("seconds")),
    }
    return [(k, _number(v)) for k, v in facts.items() if v is not None]


def _headlines(
    metrics: Mapping[str, Any], monitor: str | None
) -> list[tuple[str, Any]]:
    """Returns the metrics of the whole data set, the most important first."""
    counters = {"kind", "step", "epoch", "split", "seconds"}
    names = [n for n in metrics if "/" not in n and n not in counters]
    names = [n for n in names if _is_number(metrics[n])]
    return [(n, metrics[n]) for n in by_importance(names, monitor=monitor)]


def _columns(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the names of per-class metrics: the part before the slash."""
    names = [n.partition("/")[0] for n in metrics if "/" in n]
    return [n for n in dict.fromkeys(names) if n != "loss"]


def _rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns one row per class: its name, color and a cell for each column."""
    columns = _columns(metrics)
    keys = [n.partition("/") for n in metrics if "/" in n]
    names = list(dict.fromkeys(name for head, _, name in keys if head in columns))
    colors = palette(max(len(names), 1)).tolist()
    rows = []
    for name, rgb in zip(names, colors, strict=False):
        values = [metrics.get(f"{column}/{name}") for column in columns]
        cells = [(v, _percent(v)) for v in values]
        rows.append({"name": name, "color": rgb, "cells": cells})
    return rows


def _is_number(x: Any) -> bool:
    return x is None or (isinstance(x, int | float) and not isinstance(x, bool))


def _percent(x: Any) -> float | None:
    """Returns a bar's length in percent; None if the value is not in [0, 1]."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 1:
        return None
    return round(100.0 * x, 2)


def _number(x: Any) -> str:
    """Formats with four digits, tiny numbers with two; a dash for missing and NaN."""
    if x is None or (isinstance(x, float) and math.isnan(x)):
        return "–"  # noqa: RUF001
    if isinstance(x, float):
        if 0 < abs(x) < 1e-3:
            return f"{x:.1e}"  # Not wider than the others.
        return f"{x:.4f}" if abs(x) <= 1 else f"{x:.4g}"
    return f"{x:,}" if isinstance(x, int) else str(x)


def _label(name: str) -> str:
    """Formats a metric's name as a heading."""
    words = title(name)
    return words[:1].upper() + words[1:]


def _leaf(x: Any) -> str:
    """Formats a value of the manifest on one line."""
    if isinstance(x, Sequence) and not isinstance(x, str):
        return ", ".join(_leaf(v) for v in x)
    if isinstance(x, Mapping):
        return ", ".join(f"{k}: {_leaf(v)}" for k, v in x.items())
    return "–" if x is None or x == "" else str(x)  # noqa: RUF001


def _duration(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _picture(path: Path) -> str | None:
    return _data_uri(path) if path.is_file() else None


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
