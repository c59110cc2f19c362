"""The report of a run: one self-contained HTML file."""

import importlib.resources
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segjax import optional
from segjax.errors import UserError
from segjax.run_folder import schema
from segjax.viz.curves import by_importance, curves
from segjax.viz.formats import (
    format_duration,
    format_label,
    format_leaf,
    format_score,
    percent,
)
from segjax.viz.palette import palette
from segjax.viz.thumbnails import Thumbnail, data_uri, thumbnails

MAX_HEADLINES = 12
MAX_SAMPLES, MAX_WORST = 24, 12


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report.html from the files of the run folder.

    Reads run.json (the manifest), metrics.jsonl, result.json, samples/*.png and
    worst/*.png; missing parts are omitted. Large pictures are shrunk, and linked to.
    Without result.json, the metrics are those of the last evaluation.

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
    records = read_records(run_dir / "metrics.jsonl")
    result = _read_json(run_dir / "result.json", schema.Result)
    evaluated = [r for r in records if r.get("kind") == "eval"]
    last = evaluated[-1] if evaluated else {}
    metrics = result.get("metrics") or last
    split = result.get("split") or last.get("split")
    samples, num_samples = _samples(run_dir, "samples", last=MAX_SAMPLES)
    worst, _ = _samples(run_dir, "worst", last=MAX_WORST)
    manifest = _read_json(run_dir / "run.json", schema.ShownManifest)
    monitor = (manifest.get("config") or {}).get("monitor")
    headlines = _headlines(metrics, monitor)
    template = page_template("report.html")
    return template.render(
        name=run_dir.resolve().name,
        facts=_facts(result, last, split),
        headlines=headlines[:MAX_HEADLINES],
        more=headlines[MAX_HEADLINES:],
        columns=_columns(metrics),
        rows=_rows(metrics),
        curves=curves(records, monitor=monitor),
        samples=samples,
        num_samples=num_samples,
        worst=worst,
        calibration=_picture(run_dir / "calibration.png"),
        manifest=manifest,
    )


def page_template(name: str) -> Any:
    """Returns a template of this package, which shares the style of all pages.

    Raises:
        ValueError: If jinja2 is not installed.
    """
    jinja2 = optional.require("jinja2", extra="report", purpose="the report")
    files = importlib.resources.files("segjax.viz")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {
        "number": format_score,
        "label": format_label,
        "leaf": format_leaf,
    }
    environment.globals["style"] = (files / "style.css").read_text(encoding="utf-8")
    return environment.from_string((files / name).read_text(encoding="utf-8"))


def _read_json(path: Path, kind: type) -> dict[str, Any]:
    """Reads an object from a file; empty if there is no file."""
    return schema.read(path, kind) if path.exists() else {}


def _facts(
    result: Mapping[str, Any], last: Mapping[str, Any], split: str | None
) -> list[tuple[str, str]]:
    """Returns facts of the run for the line below its name."""
    facts = {
        "split": "train (the images of training, no test)"
        if split == "train"
        else split,
        "steps": result.get("steps", last.get("step")),
        "seed": format_leaf(result["seed"]) if "seed" in result else None,
        "time": format_duration(result.get("seconds")),
    }
    return [(k, format_score(v)) for k, v in facts.items() if v is not None]


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
        cells = [(v, percent(v)) for v in values]
        rows.append({"name": name, "color": rgb, "cells": cells})
    return rows


def _is_number(x: Any) -> bool:
    return x is None or (isinstance(x, int | float) and not isinstance(x, bool))


def _samples(run_dir: Path, name: str, *, last: int) -> tuple[list[Thumbnail], int]:
    """Returns the last pictures of a folder, and how many there are."""
    files = sorted((run_dir / name).glob("*.png"))
    return thumbnails(run_dir, files[-last:]), len(files)


def _picture(path: Path) -> str | None:
    return data_uri(path.read_bytes(), "png") if path.is_file() else None
