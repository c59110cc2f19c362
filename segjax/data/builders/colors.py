"""Masks whose classes are colors, and the table that names them."""

import collections
import csv
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from segjax.data.builders import base, files, masks
from segjax.data.builders.sources import Tree
from segjax.errors import UserError
from segjax.files import limits, reading

TABLES = ("classes.csv", "class_dict.csv")
MAX_COLORS = 64
"""Of masks without a table."""

IGNORED = ("ignore", "ignored", "void", "unlabeled")
"""Names, in any case, of colors that are no class."""

_NEAR = 16
"""Two colors are close if no channel differs by more."""
_RARE = 100
_NEEDS = "rows r,g,b,name or #rrggbb,name"
_HEX = re.compile(r"#?[0-9a-fA-F]{6}")
_BYTE = re.compile(r"\d{1,3}")


@dataclasses.dataclass(frozen=True)
class ColorTable:
    """Colors and their names.

    Attributes:
        colors: As 0xRRGGBB, all different.
        names: One for each color.
    """

    colors: tuple[int, ...]
    names: tuple[str, ...]

    def classes(self) -> tuple[str, ...]:
        """Returns the names of the colors that are classes, in order."""
        return tuple(name for name in self.names if not _is_ignored(name))

    def ids(self, ignore_index: int) -> dict[int, int]:
        """Maps each color to its class id, or to the ignore index."""
        classes = self.classes()
        return {
            color: ignore_index if _is_ignored(name) else classes.index(name)
            for color, name in zip(self.colors, self.names, strict=True)
        }


def shown(color: int) -> str:
    """Formats a color: `#ff8000`."""
    return f"#{color:06x}"


def read_table(content: bytes, where: str) -> ColorTable:
    """Reads a CSV file of colors and names.

    A row has the numbers r, g and b from 0 to 255, or a color `#rrggbb`, and a name,
    before or after them. A first row without a color is a header.

    Args:
        content: The file's content.
        where: Its name, for messages.

    Raises:
        ValueError: If a row has no color, a color or a name occurs twice, or there are
            no classes; the message names it.
    """
    text = reading.decode_text(content, where)
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    colors, names = [], []
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{where} is not CSV ({error}): needed {_NEEDS}.") from error
    for number, row in enumerate(rows):
        row = [field.strip() for field in row]
        if not any(row):
            continue
        color, name = _parse(row)
        if color is None and number == 0:
            continue
        if color is None:
            raise UserError(
                f"{where}: row {number + 1} is {','.join(row)[:80]!a}: needed "
                f"{_NEEDS}; correct it."
            )
        colors.append(color)
        names.append(name or f"color {shown(color)}")
    _check(colors, names, where)
    return ColorTable(tuple(colors), tuple(names))


def _parse(row: Sequence[str]) -> tuple[int | None, str]:
    """Returns color and name of a row; no color if it has none."""
    hexes = [field for field in row if field.startswith("#") and _HEX.fullmatch(field)]
    if len(hexes) == 1:
        return int(hexes[0][1:], 16), " ".join(f for f in row if f not in hexes).strip()
    numbers = [int(field) for field in row if _BYTE.fullmatch(field)]
    if len(numbers) != 3 or max(numbers) > 255:
        return None, ""
    red, green, blue = numbers
    rest = [field for field in row if not _BYTE.fullmatch(field)]
    return red << 16 | green << 8 | blue, " ".join(rest).strip()


def _check(colors: Sequence[int], names: Sequence[str], where: str) -> None:
    files.check_names(names, where)
    classes = [name for name in names if not _is_ignored(name)]
    for values, kind in ((list(map(shown, colors)), "color"), (classes, "name")):
        twice = [v for v, count in collections.Counter(values).items() if count > 1]
        if twice:
            raise UserError(
                f"{where} has the {kind} {twice[0]} in two rows: needed different "
                f"ones; remove or rename one."
            )
    if not classes:
        raise UserError(f"{where} names no class: needed {_NEEDS}.")


def _is_ignored(name: str) -> bool:
    return name.lower() in IGNORED


def are_colors(tree: Tree, mask_names: Iterable[str]) -> bool:
    """Whether a mask has colors, and not equal channels, a palette or one channel."""
    return any(masks.is_color(tree, name) for name in mask_names)


def count(tree: Tree, mask_names: Sequence[str]) -> dict[int, int]:
    """Counts the pixels of each color in all masks.

    Args:
        tree: Contains the masks.
        mask_names: Names of the masks' files.

    Returns:
        Pixels by color, the most common first; of equally common ones, the darkest.

    Raises:
        ValueError: If there are more than `MAX_COLORS` colors, or a rare one that is
            almost a common one, as lossy compression makes them.
    """
    total: collections.Counter[int] = collections.Counter()
    with base.threads() as pool:
        found = pool.map(lambda name: _count_one(tree, name), mask_names)
        for name, counts in zip(mask_names, found, strict=True):
            total.update(counts)
            if len(total) > MAX_COLORS:
                raise UserError(
                    f"{tree.shown(name)} and those before it have {len(total):,} "
                    f"colors: needed at most {MAX_COLORS}, one for each class; export "
                    f"the masks again as PNG, without smoothing and never as JPEG, or "
                    f"pass the colors of the classes in a CSV file with colors= "
                    f"(--colors)."
                )
    ordered = dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
    _check_noise(tree, ordered)
    return ordered


def _count_one(tree: Tree, name: str) -> dict[int, int]:
    values, counts = np.unique(masks.read_colors(tree, name), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _check_noise(tree: Tree, counts: Mapping[int, int]) -> None:
    colors = np.array(list(counts))
    channels = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=-1)
    for place, (color, pixels) in enumerate(counts.items()):
        far = np.abs(channels[:place] - channels[place]).max(axis=-1)
        for other in colors[:place][far <= _NEAR].tolist():
            if counts[other] >= _RARE * pixels:
                raise UserError(
                    f"the masks in {tree.shown('')} have {pixels:,} pixels of "
                    f"{shown(color)}, which is nearly {shown(other)} ({counts[other]:,}"
                    f" pixels), as JPEG makes them: needed one color for each class; "
                    f"export the masks again as PNG."
                )


def found_table(counts: Mapping[int, int]) -> ColorTable:
    """Names colors that have no table: class 0 is the most common one."""
    return ColorTable(tuple(counts), tuple(f"color {shown(c)}" for c in counts))


def said(counts: Mapping[int, int]) -> str:
    """Describes found colors in one line."""
    total = sum(counts.values())
    few = [f"{shown(c)} {100 * n / total:.3g} %" for c, n in list(counts.items())[:6]]
    more = f" and {len(counts) - len(few)} more" if len(counts) > len(few) else ""
    return (
        f"the masks are in color: {len(counts)} colors became classes 0 to "
        f"{len(counts) - 1}, the most common first: {', '.join(few)}{more}; segjax "
        f"data colors writes a table to name them"
    )


def given_table(tree: Tree, path: str | os.PathLike | None) -> ColorTable | None:
    """Reads the table at a path, else classes.csv in the source; None without one.

    Raises:
        ValueError: If it cannot be read, or there are two in the source.
    """
    if path is not None:
        where = pathlib.Path(path).expanduser()
        try:
            content = reading.read_bytes(where, max_bytes=limits.TEXT_BYTES)
        except OSError as error:
            raise UserError(
                f"cannot read {where} ({error.strerror}): needed a CSV file with "
                f"{_NEEDS}."
            ) from error
        return read_table(content, str(where))
    found = [name for name in TABLES if name in tree.files("")]
    if len(found) > 1:
        raise UserError(
            f"{tree.shown('')} has {' and '.join(found)}: needed one; remove the "
            f"other, or choose one with colors= (--colors)."
        )
    if not found:
        return None
    content = tree.read(found[0], max_bytes=limits.TEXT_BYTES)
    return read_table(content, tree.shown(found[0]))
