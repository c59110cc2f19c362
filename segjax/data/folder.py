"""A folder of images and masks as a data set."""

import dataclasses
import difflib
import hashlib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from segjax import ops
from segjax.data import dataset, stored
from segjax.data.builders import base, files, sources, splits
from segjax.errors import UserError
from segjax.files import limits, reading
from segjax.typing import IGNORE_INDEX

_IGNORE_16 = ops.ignore_index(np.uint16)

_NEEDS = (
    "the folders images/ and masks/ (same stems; masks as PNGs of class ids), or "
    "train/, validation/ and test/ with these two folders in each"
)


@dataclasses.dataclass(frozen=True)
class _Source(splits.SplitOptions):
    ids: tuple[int, ...] | None
    ignore_index: int | None
    classes: tuple[str, ...] | None

    def key(self) -> str:
        """Digests the files and all options."""
        parts = [sources.digest(self.tree, f) for f in _data_folders(self.tree)]
        parts.append(repr(self))
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def folder(
    source: str | os.PathLike,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """Loads a folder of images and masks.

        source/images/a.jpg   source/masks/a.png   source/classes.txt (optional)

    Images are png, jpg, tif, bmp, webp or npy files of any size, read by
    `data.read_image`; all have the same dtype and number of channels. A mask has the
    stem and the size of its image, and one channel of class ids. There may also be one
    pair of folders for each split: source/train/images and so on; without
    source/validation, validation images are drawn from train.

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
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Returns:
        Class names are the lines of classes.txt, else "class 0" up to the largest id
        found.

    Raises:
        ValueError: If a file is missing, broken, of another size or holds an unknown
            id; the message names it.
    """
    splits.check_fractions(validation, test)
    path = sources.existing(source, _NEEDS)
    tree = sources.Folder(path) if path.is_dir() else sources.Zip(path, path.stem)
    values = None if ids is None else tuple(ids)
    options = _Source(
        tree, validation, test, seed, values, ignore_index, classes=_class_names(tree)
    )
    directory = dataset.prepare(
        Folder, data_dir=data_dir, source=options, key=options.key()
    )
    return dataset.view(directory, "folder")


class Folder(base.Builder, skip_registration=True):
    """Reads `images/*` and `masks/*`, or those in each split's folder."""

    VERSION = tfds.core.Version("2.0.0")
    DESCRIPTION = "A user's own images and masks."
    FEATURES = base.ANY_SEMANTIC
    source: _Source

    def plan(self):
        """Pairs images with masks and assigns them to splits."""
        self._found: set[int] = set()
        tree, places = self.source.tree, splits.split_folders(self.source.tree)
        pairs = {split: _pairs(tree, place) for split, place in places.items()}
        pairs = pairs or {"train": _pairs(tree, "")}
        masks = [mask for split in pairs.values() for _, mask in split]
        self._known, self._dtype = _known_ids(self.source, masks)
        if "train" not in pairs:
            raise UserError(
                f"{tree.shown('')} has {', '.join(places.values())} but no train "
                f"folder: needed train/images and train/masks; add it."
            )
        return self.source.complete(pairs, test=0.0 if places else self.source.test)

    def where(self, item, name):
        """Returns the path of the image."""
        del name
        return self.source.tree.shown(item[0])

    def make(self, item):
        """Reads one pair."""
        tree, (image_name, mask_name) = self.source.tree, item
        image = files.read_image(tree, image_name)
        ids = files.read_ids(tree, mask_name, image, image_name=image_name)
        names = self.source.classes
        fix = "pass ids= or ignore_index= if masks hold other values"
        if names:
            fix = f"{tree.shown('classes.txt')} names {len(names)} classes; {fix}"
        label = files.to_labels(
            tree, mask_name, ids, self._known, fix=fix, dtype=self._dtype
        )
        self._found.update(np.unique(label).tolist())
        return {"image": image, "label": label, "name": files.stem(image_name)}

    def describe(self):
        """Returns the class names: from classes.txt, or for the ids that occurred."""
        ignored = ops.ignore_index(self._dtype)
        found = sorted(self._found - {ignored})
        names = self.source.classes
        if self.source.ids is None:
            _check_plausible(self.source, found, has_ignored=ignored in self._found)
        count = len(self.source.ids or ()) or max(found, default=-1) + 1
        return {"classes": names or [f"class {i}" for i in range(count)]}


def _class_names(tree: sources.Tree) -> tuple[str, ...] | None:
    if "classes.txt" not in tree.files(""):
        return None
    where = tree.shown("classes.txt")
    content = tree.read("classes.txt", max_bytes=limits.TEXT_BYTES)
    lines = reading.decode_text(content, where).splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    files.check_names(names, where)
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"{where} names {len(names)} classes, "
            f"{len(set(names))} of them different: needed one name per line, all "
            f"different."
        )
    return names


def _known_ids(
    source: _Source, masks: Sequence[str]
) -> tuple[dict[int, int], type[np.uint8] | type[np.uint16]]:
    """Maps each allowed mask value to a class id; also returns the label dtype."""
    names, ids = source.classes, source.ids
    if ids is None:
        ids = range(len(names) if names else _max_ids(source.tree, masks))
    if names and len(names) != len(ids):
        raise UserError(
            f"ids lists {len(ids)} values, {source.tree.shown('classes.txt')} "
            f"{len(names)} names: needed one value for each name."
        )
    if not 0 < len(set(ids)) == len(ids) < _IGNORE_16:
        raise UserError(
            f"ids must be 1 to {_IGNORE_16 - 1} different values, got {len(ids)}, "
            f"{len(set(ids))} of them different."
        )
    ignored = source.ignore_index
    if ignored == IGNORE_INDEX and len(ids) > IGNORE_INDEX:
        ignored = _IGNORE_16
    # If the number of classes is not given, 0 to 254 are possible, as in 8-bit masks.
    counted = bool(names or source.ids) or len(ids) > IGNORE_INDEX
    dtype = stored.label_dtype(len(ids)) if counted else np.uint8
    known = {} if ignored is None else {ignored: ops.ignore_index(dtype)}
    known |= {value: i for i, value in enumerate(ids) if source.ids or value != ignored}
    return known, dtype


def _max_ids(tree: sources.Tree, masks: Sequence[str]) -> int:
    """Returns the number of possible ids: 255, or more if a 16-bit mask has more."""
    largest = 0
    for name in masks:
        if files.may_exceed_8_bits(tree, name):
            ids = files.read_ids(tree, name)
            largest = max(largest, int(ids[ids != _IGNORE_16].max(initial=0)))
    return IGNORE_INDEX if largest <= IGNORE_INDEX else largest + 1


def _check_plausible(source: _Source, found: list[int], *, has_ignored: bool) -> None:
    """Rejects masks that are pictures: black and white, or ids in large steps."""
    ignored = source.ignore_index
    values = [*found, ignored] if has_ignored and ignored is not None else found
    largest = max(found, default=0)
    if has_ignored and largest == 0:
        trouble = "all other pixels would be ignored"
    elif not source.classes and largest >= 32 and len(found) * 4 <= largest:
        trouble = "most classes would be empty"
    else:
        return
    shown = ", ".join(map(str, sorted(values)))
    raise UserError(
        f"the masks in {source.tree.shown('')} hold only the values {shown}: needed "
        f"class ids 0, 1, 2, ... ({trouble}); pass ids=({shown}) (--ids "
        f"{shown.replace(',', '')}) to map them to classes 0 to {len(values) - 1}."
    )


def _data_folders(tree: sources.Tree) -> list[str]:
    """Lists the folders of images and masks."""
    folders = splits.split_folders(tree).values()
    inner = [f"{s}/" for s in folders] or [""]
    return [f"{place}{kind}" for place in inner for kind in ("images", "masks")]


def _pairs(tree: sources.Tree, place: str) -> list[tuple[str, str]]:
    """Pairs the files of a folder that holds images/ and masks/."""
    prefix = f"{place}/" if place else ""
    there = [name.removeprefix(prefix) for name in tree.folders(place)]
    for kind in ("images", "masks"):
        if kind not in there:
            near = difflib.get_close_matches(kind, there, n=1)
            hint = f"rename {near[0]}/ to {kind}/" if near else f"add {kind}/"
            got = ", ".join(f"{name}/" for name in there[:6]) or "no folder"
            raise UserError(
                f"{tree.shown(place)} has no folder {kind}/: needed {_NEEDS}, got "
                f"{got}; {hint}."
            )
    return files.pairs(tree, f"{prefix}images", f"{prefix}masks")
