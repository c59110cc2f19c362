"""A folder of images and masks as a data set."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import (
    base,
    class_ids,
    files,
    label_readers,
    mask_checks,
    pairing,
    sources,
    splits,
)
from segjax.data.builders import colors as color_tables
from segjax.data.builders.colors import ColorTable
from segjax.data.builders.pairing import Pairing
from segjax.errors import UserError
from segjax.typing import IGNORE_INDEX

_NEEDS = (
    "the folders images/ and masks/ (same stems; masks as PNGs of class ids), or "
    "train/, validation/ and test/ with these two folders in each"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source(splits.SplitOptions):
    pairing: Pairing = dataclasses.field(repr=False)
    ids: tuple[int, ...] | None
    ignore_index: int | None
    classes: tuple[str, ...] | None
    table: ColorTable | None

    def digest(self) -> str:
        """Digests the files in use."""
        return self.pairing.key(self.tree)


def folder(
    source: str | os.PathLike,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    colors: str | os.PathLike | None = None,
    group: str | None = None,
    folds: int | None = None,
    fold: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """Loads a folder of images and masks.

        source/images/a.jpg   source/masks/a.png   source/classes.txt (optional)
        source/a_image.jpg    source/a_mask.png    source/classes.csv (optional)

    Images are png, jpg, tif, bmp, gif, webp, npy or DICOM (.dcm) files, read by
    `data.read_image`; all have the same dtype and number of channels. A mask has the
    stem and the size of its image. Folders and names may be those of other tools:
    see docs/data.md. How files were paired is printed unless it is the first layout.
    Folders train/, validation/ and test/ are splits; without validation/, validation
    images are drawn from train.

    A mask has one channel of class ids, or colors. A table names colors:
    rows r,g,b,name or #rrggbb,name; colors called void, ignore or unlabeled are
    ignored. Without a table, up to 64 colors become classes, the most common first,
    and are printed. The indices of a palette are class ids unless there is a table.

    Args:
        source: The folder, or a zip of it.
        validation: Fraction of the images held out for validation, in [0, 1). At least
            one image if there are three, unless it is 0.
        test: Fraction held out for testing, likewise; ignored if there are split
            folders.
        seed: Chooses which images are held out.
        ids: The mask values of class 0, 1, ..., such as (0, 255) for black and white
            masks; None if they are 0, 1, ... already.
        ignore_index: The mask value of ignored pixels; None if there are none. A value
            listed in `ids` is never ignored. With more than 255 classes, named or found
            in the masks, 255 is a class, and 65535 is ignored instead.
        colors: A table of colors; by default, classes.csv or class_dict.csv in the
            source, if there is one.
        group: A regular expression. Images in whose names it matches the same text, or
            the same first parentheses, are never in different splits: `^[^_]+` for
            patients in `p01_3.png`. Names include folders below those of images.
        folds: Divides the images into so many folds of similar class shares, instead of
            by fractions. All folds share their prepared data.
        fold: The fold that is `validation`, from 0; the others are `train`.
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Returns:
        Class names are the lines of classes.txt, or the names of the colors, else
        "class 0" up to the largest id found.

    Raises:
        ValueError: If a file is missing, broken, of another size or holds an unknown
            id or color, or the masks hold a single class; the message names it.
    """
    splits.check_fractions(validation, test)
    splits.check_fold(folds, fold)
    path = sources.existing(source, _NEEDS)
    tree = sources.Folder(path) if path.is_dir() else sources.Zip(path, path.stem)
    table = color_tables.given_table(tree, colors)
    names = class_ids.read_names(tree)
    if table and (names or ids is not None):
        other = tree.shown(class_ids.NAMES_FILE) if names else "ids"
        raise UserError(
            f"classes are given by colors and by {other}: needed one; remove the other."
        )
    options = _Source(
        tree=tree,
        validation=validation,
        test=test,
        seed=seed,
        group=group,
        folds=folds,
        pairing=pairing.find(tree, pairing.SEMANTIC, needs=_NEEDS),
        ids=None if ids is None else tuple(ids),
        ignore_index=ignore_index,
        classes=names,
        table=table,
    )
    directory = dataset.prepare(
        Folder, data_dir=data_dir, source=options, key=options.key()
    )
    if folds:
        return dataset.fold_view(directory, "folder", fold)
    return dataset.view(directory, "folder")


class Folder(base.Builder, skip_registration=True):
    """Reads pairs of images and masks."""

    VERSION = tfds.core.Version("2.0.0")
    DESCRIPTION = "A user's own images and masks."
    FEATURES = base.ANY_SEMANTIC
    source: _Source

    def plan(self):
        """Finds out what masks hold, and assigns the pairs to splits."""
        source, tree = self.source, self.source.tree
        pairs = source.pairing.splits(tree)
        if source.pairing.rule:
            print(f"note: {source.pairing.rule}", file=sys.stderr)
        self._facts: list[mask_checks.MaskFacts] = []
        self._reader = _reader(source)
        if source.folds:
            held, self._fold_sizes = source.in_folds(pairs, self._content(pairs))
            return held
        has_splits = pairs.keys() != {"train"}
        return source.complete(pairs, test=0.0 if has_splits else source.test)

    def _content(self, pairs: Mapping[str, Sequence[pairing.Pair]]) -> np.ndarray:
        """Counts the pixels of each class in each image of `train`, [N, C]."""
        with base.threads() as pool:
            read = pool.map(
                lambda pair: self._reader.read(pair.mask, None, None)[0], pairs["train"]
            )
            counts = [np.bincount(label.ravel()) for label in read]
        content = np.zeros((len(counts), max(map(len, counts))))
        for row, found in zip(content, counts, strict=True):
            row[: len(found)] = found
        return content

    def where(self, item, name):
        """Returns the path of the image."""
        del name
        return self.source.tree.shown(item.image)

    def make(self, item):
        """Reads one pair."""
        image = files.read_image(self.source.tree, item.image)
        label, facts = self._reader.read(item.mask, image, item.image)
        self._facts.append(facts)
        return {"image": image, "label": label, "name": item.name}

    def describe(self):
        """Returns the class names and the sizes of the folds."""
        # Threads added them in any order.
        facts = sorted(self._facts, key=lambda one: one.name)
        classes = self._reader.classes(facts)
        for note in mask_checks.check_classes(facts, self.source.tree.shown("")):
            print(f"note: {note}", file=sys.stderr)
        sizes = {"folds": self._fold_sizes} if self.source.folds else {}
        return {"classes": classes} | sizes


def _reader(source: _Source) -> label_readers.LabelReader:
    """Returns the reader of masks; colors without a table are printed."""
    tree, table = source.tree, source.table
    names = [pair.mask for pair in source.pairing.pairs]
    is_free = not table and not source.classes and source.ids is None
    if is_free and color_tables.are_colors(tree, names):
        counts = color_tables.count(tree, names)
        print(f"note: {color_tables.said(counts)}.", file=sys.stderr)
        table = color_tables.found_table(counts)
    if table:
        return label_readers.ColorReader(tree, table)
    return label_readers.IdReader(
        tree,
        names,
        classes=source.classes,
        ids=source.ids,
        ignore_index=source.ignore_index,
    )
