"""Validation of the fields of `model.json`."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

TASKS = ("semantic", "instance", "multilabel")
_MAX_CLASSES = 65534
_MAX_COUNT = 2**16
"""Of channels, `multiple` and `max_shapes`."""


def first_fault(description: Mapping[str, Any]) -> str:
    """Describes the first invalid field; "" if all are valid."""
    for name, (need, fits) in _FIELDS.items():
        if name == "colors" and description.get(name) is None:
            continue
        if not fits(description[name]):
            return f"its field {name} is not {need}"
    colors = description.get("colors")
    if colors is not None and len(colors) != len(description["classes"]):
        return f"it has {len(colors)} colors for {len(description['classes'])} classes"
    return ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MAX_COUNT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**64 and math.isfinite(value)


def _are_classes(value: Any) -> bool:
    fits = isinstance(value, list) and 1 <= len(value) <= _MAX_CLASSES
    return fits and all(map(_is_text, value))


def _is_image(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_count(value.get("channels"))
        and value.get("dtype") in ("uint8", "uint16", "float32")
        and all(_is_number(value.get(k, 0)) for k in ("low", "high"))
    )


def _are_variables(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    name, digest = value.get("name"), value.get("sha256")
    is_name = isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name)
    return bool(is_name) and isinstance(digest, str)


def _are_colors(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color)
        for color in value
    )


def _is_part(value: Any) -> bool:
    return value is None or isinstance(value, dict)


_PART = ("an object or null", _is_part)
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "variables": ("a file name in this folder and a digest", _are_variables),
    "classes": ("a list of names", _are_classes),
    "colors": ("a list of #rrggbb", _are_colors),
    "image": ("channels, dtype and range", _is_image),
    "task": (f"one of {', '.join(TASKS)}", lambda value: value in TASKS),
    "multiple": ("a positive integer", _is_count),
    "max_shapes": ("a positive integer", _is_count),
    "needs_code": ("text or null", lambda x: x is None or isinstance(x, str)),
    "module": _PART,
    "preprocess": _PART,
    "model_inputs": _PART,
}
