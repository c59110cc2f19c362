"""From the masks of a user's own folder to class ids, by value or by color."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from segjax import ops
from segjax.data import stored
from segjax.data.builders import class_ids, colors, masks
from segjax.data.builders.colors import ColorTable
from segjax.data.builders.mask_checks import MaskFacts, check_palettes
from segjax.data.builders.sources import Tree
from segjax.errors import UserError


@runtime_checkable
class LabelReader(Protocol):
    """Reads masks."""

    def read(
        self, name: str, like: np.ndarray | None, image_name: str | None
    ) -> tuple[np.ndarray, MaskFacts]:
        """Reads one mask.

        Args:
            name: Its file.
            like: The image, whose size the mask must have; None for any size.
            image_name: The image's file, for messages.

        Returns:
            uint8 or uint16 [H, W], and what it holds.
        """
        ...

    def classes(self, facts: Sequence[MaskFacts]) -> tuple[str, ...]:
        """Returns the class names, after all masks were read."""
        ...


class IdReader:
    """Reads masks whose values are class ids, or stand for them."""

    def __init__(
        self,
        tree: Tree,
        names: Sequence[str],
        *,
        classes: Sequence[str] | None,
        ids: Sequence[int] | None,
        ignore_index: int | None,
    ):
        """Reads the headers of all masks.

        Args:
            tree: Contains the masks.
            names: Their files.
            classes: Class names, if they are given.
            ids: The mask values of class 0, 1, ..., if they are given.
            ignore_index: The mask value of ignored pixels.
        """
        self._tree, self._classes, self._ids = tree, classes, ids
        self._ignore_index = ignore_index
        self._known, self._dtype = class_ids.known_ids(
            tree, names, names=classes, ids=ids, ignore_index=ignore_index
        )

    def read(
        self, name: str, like: np.ndarray | None, image_name: str | None
    ) -> tuple[np.ndarray, MaskFacts]:
        """See `LabelReader`."""
        values = masks.read_ids(self._tree, name, like, image_name=image_name)
        fix = "pass ids= or ignore_index= if masks hold other values"
        if self._classes:
            where = self._tree.shown(class_ids.NAMES_FILE)
            fix = f"{where} names {len(self._classes)} classes; {fix}"
        label = masks.to_labels(
            self._tree, name, values, self._known, fix=fix, dtype=self._dtype
        )
        palette = masks.palette(self._tree, name)
        return label, MaskFacts.of(name, label, values, palette)

    def classes(self, facts: Sequence[MaskFacts]) -> tuple[str, ...]:
        """See `LabelReader`; named by number unless names are given."""
        where = self._tree.shown("")
        check_palettes(facts, where)
        found = sorted({c for one in facts for c in one.classes})
        has_ignored = any(one.has_ignored for one in facts)
        if self._ids is None:
            class_ids.check_plausible(
                where,
                found,
                names=self._classes,
                ignored=self._ignore_index if has_ignored else None,
            )
        count = len(self._ids or ()) or max(found, default=-1) + 1
        return tuple(self._classes or [f"class {i}" for i in range(count)])


class ColorReader:
    """Reads masks whose colors are classes."""

    def __init__(self, tree: Tree, table: ColorTable):
        """Maps the colors of a table to class ids."""
        self._tree, self._classes = tree, table.classes()
        self._dtype = stored.label_dtype(len(self._classes))
        self._ids = table.ids(ops.ignore_index(self._dtype))

    def read(
        self, name: str, like: np.ndarray | None, image_name: str | None
    ) -> tuple[np.ndarray, MaskFacts]:
        """See `LabelReader`."""
        pixels = masks.read_colors(self._tree, name, like, image_name)
        label = by_color(self._tree, name, pixels, self._ids, self._dtype)
        return label, MaskFacts.of(name, label, pixels, None)

    def classes(self, facts: Sequence[MaskFacts]) -> tuple[str, ...]:
        """See `LabelReader`."""
        del facts
        return self._classes


def by_color(
    tree: Tree, name: str, pixels: np.ndarray, ids: Mapping[int, int], dtype: type
) -> np.ndarray:
    """Maps the colors of a mask to class ids.

    Args:
        tree: Contains the mask.
        name: Its file, for messages.
        pixels: [H, W], 0xRRGGBB.
        ids: Class ids by color.
        dtype: Dtype of the result.

    Raises:
        ValueError: If there is another color.
    """
    found = np.unique(pixels)
    for color in found.tolist():
        if color not in ids:
            y, x = np.argwhere(pixels == color)[0]
            few = ", ".join(map(colors.shown, list(ids)[:6])) + ", ..." * (len(ids) > 6)
            raise UserError(
                f"{tree.shown(name)} has the color {colors.shown(color)} at x {x}, y "
                f"{y}: needed one of {few}; correct the mask, or add the color to the "
                f"table (a JPEG or smoothed mask has many: export it again as PNG)."
            )
    ours = np.array([ids[color] for color in found.tolist()], dtype)
    return ours[np.searchsorted(found, pixels)]
