"""A run folder as one HTML file that opens offline."""

import base64
import importlib.resources
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segjax import run_files
from segjax.viz.curves import by_importance, curves, title
from segjax.viz.palette import palette

MAX_HEADLINES = 12
MAX_SAMPLES = 24


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report.html from whatever the run folder holds.

    Reads run.json (the manifest), metrics.jsonl, result.json and samples/*.png; a
    part that is missing is left out. Without result.json the figures are those of
    the last evaluation.

    Args:
        run_dir: A run folder.

    Returns:
        The path of the report; it is replaced in one step.

    Raises:
        ValueError: If `run_dir` is no folder, or a JSON file in it is broken.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise ValueError(
            f"write_report needs a run folder, got {run_dir}. Give the folder that "
            f"holds metrics.jsonl."
        )
    path = run_dir / "report.html"
    # Beside the target, since a rename is only atomic within one file system.
    draft = run_dir / f".report.html.{os.getpid()}"
    try:
        _write(draft, _render(run_dir))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:  # A full disk does not say of which file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl, as far as it goes.

    Lines cut short by a killed process are skipped. A resumed run repeats the
    steps since its checkpoint: the later record of the same kind, split and step
    stands.

    Args:
        path: The file; an empty list if it does not exist.

    Returns:
        Records by step.
    """
    records = {}
    for record in run_files.read_log_leniently(path):
        records[record["kind"], record.get("split"), record["step"]] = record
    return sorted(records.values(), key=lambda record: record["step"])


def _render(run_dir: Path) -> str:
    import jinja2

    records = read_records(run_dir / "metrics.jsonl")
    result = _read_json(run_dir / "result.json", run_files.Result)
    evaluated = [r for r in records if r.get("kind") == "eval"]
    last = evaluated[-1] if evaluated else {}
    figures = result.get("metrics") or last
    split = result.get("split") or last.get("split")
    samples = sorted((run_dir / "samples").glob("*.png"))
    manifest = _read_json(run_dir / "run.json", run_files.ShownManifest)
    monitor = (manifest.get("config") or {}).get("monitor")
    headlines = _headlines(figures, monitor)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {"number": _number, "label": _label, "leaf": _leaf}
    source = importlib.resources.files("segjax.viz").joinpath("report.html")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        name=run_dir.resolve().name,
        facts=_facts(result, last, split),
        headlines=headlines[:MAX_HEADLINES],
        more=headlines[MAX_HEADLINES:],
        columns=_columns(figures),
        rows=_rows(figures),
        curves=curves(records, monitor=monitor),
        samples=[(p.stem, _data_uri(p)) for p in samples[-MAX_SAMPLES:]],
        num_samples=len(samples),
        manifest=manifest,
    )


def _read_json(path: Path, kind: type) -> dict[str, Any]:
    """An object from a file; empty if there is no file."""
    return run_files.read(path, kind) if path.exists() else {}


def _facts(
    result: Mapping[str, Any], last: Mapping[str, Any], split: str | None
) -> list[tuple[str, str]]:
    """What the run was, for the line under its name."""
    facts = {
        "split": split,
        "steps": result.get("steps", last.get("step")),
        "seed": _leaf(result["seed"]) if "seed" in result else None,
        "time": _duration(result.get("seconds")),
    }
    return [(k, _number(v)) for k, v in facts.items() if v is not None]


def _headlines(
    figures: Mapping[str, Any], monitor: str | None
) -> list[tuple[str, Any]]:
    """Figures of the whole data set, the most telling first."""
    counters = {"kind", "step", "epoch", "split", "seconds"}
    names = [n for n in figures if "/" not in n and n not in counters]
    names = [n for n in names if _is_figure(figures[n])]
    return [(n, figures[n]) for n in by_importance(names, monitor=monitor)]


def _columns(figures: Mapping[str, Any]) -> list[str]:
    """Scores that are given per class: the part before the slash."""
    names = [n.partition("/")[0] for n in figures if "/" in n]
    return [n for n in dict.fromkeys(names) if n != "loss"]


def _rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a class: its name, colour and a cell for each column."""
    columns = _columns(figures)
    keys = [n.partition("/") for n in figures if "/" in n]
    names = list(dict.fromkeys(name for head, _, name in keys if head in columns))
    colours = palette(max(len(names), 1)).tolist()
    rows = []
    for name, rgb in zip(names, colours, strict=False):
        values = [figures.get(f"{column}/{name}") for column in columns]
        cells = [(v, _share(v)) for v in values]
        rows.append({"name": name, "colour": rgb, "cells": cells})
    return rows


def _is_figure(x: Any) -> bool:
    return x is None or (isinstance(x, int | float) and not isinstance(x, bool))


def _share(x: Any) -> float | None:
    """A bar's length in percent; None where the value is no score in [0, 1]."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 1:
        return None
    return round(100.0 * x, 2)


def _number(x: Any) -> str:
    """Four digits, two of very small numbers; a dash for absent and for NaN."""
    if x is None or (isinstance(x, float) and math.isnan(x)):
        return "–"  # noqa: RUF001
    if isinstance(x, float):
        if 0 < abs(x) < 1e-3:
            return f"{x:.1e}"  # No wider than the others.
        return f"{x:.4f}" if abs(x) <= 1 else f"{x:.4g}"
    return f"{x:,}" if isinstance(x, int) else str(x)


def _label(name: str) -> str:
    """A score's name as a heading."""
    words = title(name)
    return words[:1].upper() + words[1:]


def _leaf(x: Any) -> str:
    """A value of the manifest on one line."""
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


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
