"""Parsing of COCO's annotation files, with type checks of every field."""

import math
from collections.abc import Callable
from typing import Any

from segjax.errors import UserError
from segjax.files import limits, reading

_MAX_EXACT = 2**53
"""Integers below it are exact in float64."""


def parse(content: bytes, where: str) -> dict[str, list[dict[str, Any]]]:
    """Parses an annotation file.

    Args:
        content: The file's content.
        where: Its name, for messages.

    Returns:
        `images`, `categories` and `annotations`, whose rows have unique ids and all
        required fields with the right types. `segmentation` is not checked.

    Raises:
        ValueError: If a table, a row or a field is missing or of another type.
    """
    need, fix = "COCO annotations", "export them again"
    tables = reading.parse_json(content, where, need=need, fix=fix)
    for name, fields in _TABLES.items():
        rows = tables.get(name) if isinstance(tables, dict) else None
        if not isinstance(rows, list):
            raise UserError(
                f"{where} has no list {name!r}: needed COCO's images, categories and "
                f"annotations; export them again."
            )
        seen = set()
        for place, row in enumerate(rows):
            what = f"{where}: entry {place + 1} of {name}"
            if not isinstance(row, dict):
                raise UserError(f"{what} is {_shown(row)}: needed {{...}}; correct it.")
            fault = _fault(row, fields) or (row["id"] in seen and "a duplicate id")
            if fault:
                raise UserError(
                    f"{where}: entry {_shown(row.get('id', '?'))} of {name} has {fault}"
                    f": needed {', '.join(fields)}, and unique ids; correct it."
                )
            seen.add(row["id"])
    for image in tables["images"]:
        if image["height"] * image["width"] > limits.MAX_PIXELS:
            raise UserError(
                f"{where}: image {image['id']} has {image['width']}x{image['height']} "
                f"pixels: needed at most {limits.MAX_PIXELS:,}; cut it into tiles."
            )
    return tables


def _fault(row: dict[str, Any], fields: dict[str, tuple[str, Callable]]) -> str:
    for name, (kind, fits) in fields.items():
        if name not in row and name != "iscrowd":
            return f"no {name}"
        if name in row and not fits(row[name]):
            return f"the {name} {_shown(row[name])}, which is not {kind}"
    return ""


def _shown(value: Any) -> str:
    """Formats a value for messages: short, and in ASCII."""
    text = ascii(value) if isinstance(value, str | float) else repr(type(value))
    if isinstance(value, int) and abs(value) < _MAX_EXACT:
        text = str(value)
    elif isinstance(value, list) and len(value) < 9:
        text = f"[{', '.join(map(_shown, value))}]"
    return text[:80]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number below 2**53."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) < _MAX_EXACT and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether a value is an integer from 0 up."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value


def _is_int(value: Any) -> bool:
    is_one = isinstance(value, int) and not isinstance(value, bool)
    return is_one and abs(value) < _MAX_EXACT


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or _is_int(value)


def _is_length(value: Any) -> bool:
    return _is_int(value) and 0 < value <= limits.MAX_SIDE


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


_ID = ("a number or a string", _is_id)
_LENGTH = (f"an integer from 1 to {limits.MAX_SIDE:,}", _is_length)
_TEXT = ("a string", lambda value: isinstance(value, str))
_CATEGORY = ("an integer", _is_int)
_TABLES: dict[str, dict[str, tuple[str, Callable]]] = {
    "images": {"id": _ID, "file_name": _TEXT, "height": _LENGTH, "width": _LENGTH},
    "categories": {"id": _CATEGORY, "name": _TEXT},
    "annotations": {
        "id": _ID,
        "image_id": _ID,
        "category_id": _CATEGORY,
        "bbox": ("four numbers", _is_box),
        "iscrowd": ("0 or 1", lambda value: isinstance(value, int) and value in (0, 1)),
    },
}
