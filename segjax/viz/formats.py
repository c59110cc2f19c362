"""Numbers, names and durations as text for people."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.viz.curves import title

_MISSING = "–"  # noqa: RUF001


def format_score(x: Any) -> str:
    """Formats a score in at most seven characters if it is in [0, 1].

    Args:
        x: A number. Floats have four digits, tiny ones two; None and NaN are a dash.
    """
    if x is None or (isinstance(x, float) and math.isnan(x)):
        return _MISSING
    if isinstance(x, float):
        if 0 < abs(x) < 1e-3:
            return f"{x:.1e}"  # Not wider than the others.
        return f"{x:.4f}" if abs(x) <= 1 else f"{x:.4g}"
    return f"{x:,}" if isinstance(x, int) else str(x)


def format_label(name: str) -> str:
    """Formats a metric's name as a heading."""
    words = title(name)
    return words[:1].upper() + words[1:]


def format_leaf(x: Any) -> str:
    """Formats a value of the manifest on one line."""
    if isinstance(x, Sequence) and not isinstance(x, str):
        return ", ".join(format_leaf(v) for v in x)
    if isinstance(x, Mapping):
        return ", ".join(f"{k}: {format_leaf(v)}" for k, v in x.items())
    return _MISSING if x is None or x == "" else str(x)


def format_duration(seconds: Any) -> str | None:
    """Formats seconds as hours, minutes and seconds; None if it is no number."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def percent(x: Any) -> float | None:
    """Returns a bar's length in percent; None if the value is not in [0, 1]."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 1:
        return None
    return round(100.0 * x, 2)
