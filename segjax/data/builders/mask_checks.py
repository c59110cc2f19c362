"""Checks of all masks of a user's own data set together, before training."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from segjax import ops
from segjax.data.builders.colors import shown
from segjax.errors import UserError

Palette = tuple[int, ...]
"""Colors by index, as 0xRRGGBB."""


@dataclasses.dataclass(frozen=True)
class MaskFacts:
    """What one mask holds.

    Attributes:
        name: Its file.
        classes: Class ids, ascending, without the ignore index.
        has_ignored: Whether there are ignored pixels.
        values: The values in the file, ascending.
        palette: The file's palette, if it has one.
    """

    name: str
    classes: tuple[int, ...]
    has_ignored: bool
    values: tuple[int, ...]
    palette: Palette | None

    @classmethod
    def of(
        cls, name: str, label: np.ndarray, values: np.ndarray, palette: Palette | None
    ) -> "MaskFacts":
        """Returns the facts of a label [H, W] and the values in its file."""
        found = np.unique(label)
        classes = found[found != ops.ignore_index(label.dtype)]
        ids = np.unique(values) if palette else np.zeros(0, int)
        return cls(
            name,
            tuple(classes.tolist()),
            len(classes) < len(found),
            tuple(ids.tolist()),
            palette,
        )


def check_palettes(facts: Sequence[MaskFacts], where: str) -> None:
    """Raises a ValueError if two files have different colors for one index.

    Indices are class ids. Where palettes differ, tools have numbered the colors of each
    file separately, and classes would be swapped.
    """
    color_of: dict[int, tuple[int, str]] = {}
    index_of: dict[int, tuple[int, MaskFacts]] = {}
    for one in facts:
        palette = one.palette or ()
        for index in one.values:
            if index >= len(palette):
                continue
            color, other = color_of.setdefault(index, (palette[index], one.name))
            first, before = index_of.setdefault(palette[index], (index, one))
            known = before.palette or ()
            if color != palette[index]:
                trouble = (
                    f"index {index} is {shown(color)} in {other} and "
                    f"{shown(palette[index])} in {one.name}"
                )
            elif first != index and known[index : index + 1] != (palette[index],):
                trouble = (
                    f"{shown(palette[index])} is index {first} in {before.name} and "
                    f"{index} in {one.name}"
                )
            else:
                continue
            raise UserError(
                f"the masks in {where} have different palettes: {trouble}: needed one "
                f"palette in all files; save them as RGB, so that colors are classes."
            )


def check_classes(facts: Sequence[MaskFacts], where: str) -> list[str]:
    """Checks that there is something to learn.

    Args:
        facts: Of all masks.
        where: The source, for messages.

    Returns:
        Notes about masks in which everything is ignored, or background.

    Raises:
        ValueError: If all masks together hold fewer than two classes.
    """
    found = sorted({c for one in facts for c in one.classes})
    if len(found) < 2:
        got = f"only class {found[0]}" if found else "ignored pixels only"
        raise UserError(
            f"the masks in {where} hold {got}: needed at least two classes, such as "
            f"background 0 and object 1; mark both in the masks."
        )
    void = [one.name for one in facts if not one.classes]
    empty = [one.name for one in facts if one.classes == (0,)]
    notes = []
    if void:
        notes.append(
            f"masks of ignored pixels only, which teach nothing: {len(void)} of "
            f"{len(facts)} ({_few(void)})."
        )
    if empty:
        notes.append(
            f"masks of class 0 only: {len(empty)} of {len(facts)} ({_few(empty)})."
        )
    return notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
