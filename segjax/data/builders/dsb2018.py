"""Data Science Bowl 2018: nuclei under many microscopes (BBBC038)."""

import dataclasses
import hashlib
import os
from typing import Literal

import numpy as np
import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import base, files, masks
from segjax.errors import UserError

CLASSES = ("background", "nucleus")
_PARTS = {"train": "stage1_train", "test": "stage1_test"}


def dsb2018(
    source: str | os.PathLike | None = None,
    *,
    modality: Literal["fluorescence", "all"] = "fluorescence",
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """Nuclei: stage1_train, shuffled and divided into 90 % and 10 %, and stage1_test.

    Images are ordered by a digest of their ids, so train and validation are the same on
    every machine.

    Args:
        source: A folder with stage1_train.zip and stage1_test.zip, or the folders that
            they contain; None if it was prepared before.
        modality: "fluorescence" for dark gray images only (541 and 53), or "all" (664
            and 65).
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Returns:
        Label 1 is nucleus; `instances` numbers the nuclei from 1.

    Reference:
        Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data
        Science Bowl, Nature Methods 16, 2019.
    """
    kinds = {"fluorescence": ["fluorescence"], "all": ["fluorescence", "other"]}
    if modality not in kinds:
        raise UserError(f"modality must be one of {list(kinds)}, got {modality!r}.")
    directory = dataset.prepare_source(Dsb2018, source, data_dir=data_dir)
    there = dataset.prepared_splits(directory)
    train, test = (
        [f"{part}_{k}" for k in kinds[modality] if f"{part}_{k}" in there]
        for part in ("train", "test")
    )
    splits = {
        "train": "+".join(f"{part}[:90%]" for part in train),
        "validation": "+".join(f"{part}[90%:]" for part in train),
        "test": "+".join(test),
    }
    splits = {split: parts for split, parts in splits.items() if parts}
    return dataset.view(directory, f"dsb2018/{modality}", splits)


@dataclasses.dataclass(frozen=True)
class _Item:
    part: str
    image: str
    masks: list[str]


class Dsb2018(base.Builder, skip_registration=True):
    """Reads `<id>/images/<id>.png` and `<id>/masks/*.png`, one nucleus each."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = "Data Science Bowl 2018, stage 1; one label map per image."
    FEATURES = base.SEMANTIC | {"instances": base.INSTANCES}
    PARTS = tuple(_PARTS.values())
    NEEDS = (
        "stage1_train.zip and stage1_test.zip, both with masks, or the folders that "
        "they contain (from bbbc.broadinstitute.org/BBBC038)"
    )

    def plan(self):
        """Groups the images by modality, each in the order of the ids' digests."""
        splits = {}
        for split, part in _PARTS.items():
            items = self._items(part)
            with base.threads() as pool:
                fluorescent = list(pool.map(self._is_fluorescence, items))
            for kind, wanted in (("fluorescence", True), ("other", False)):
                splits[f"{split}_{kind}"] = [
                    item
                    for item, got in zip(items, fluorescent, strict=True)
                    if got == wanted
                ]
        return {split: items for split, items in splits.items() if items}

    def _items(self, part: str) -> list[_Item]:
        tree = self.source[part]
        items = []
        for folder in tree.folders(""):
            found = files.images(tree, f"{folder}/images")
            masks = files.images(tree, f"{folder}/masks")
            if len(found) != 1:
                raise UserError(
                    f"{tree.shown(folder)} holds {len(found)} images: needed one, "
                    f"{folder}/images/{folder}.png; download {part} again."
                )
            if not masks:
                raise UserError(
                    f"{tree.shown(found[0])} has no mask: needed one PNG per nucleus "
                    f"in {folder}/masks; add them, or remove the folder."
                )
            items.append(_Item(part, found[0], masks))
        if not items:
            raise UserError(f"{tree.shown('')} holds no image: needed {self.NEEDS}.")
        return sorted(items, key=lambda item: _digest(item.image))

    def _is_fluorescence(self, item: _Item) -> bool:
        """Whether an image is gray and mostly dark, unlike stained or bright field."""
        image = files.read_image(self.source[item.part], item.image)[::4, ::4]
        # Every colored image has a channel difference of at least 120 somewhere; the
        # medians of dark images are at most 52, those of bright ones at least 149.
        colored = np.ptp(image.astype(np.int16), axis=-1).max() > 16
        return not colored and float(np.median(image)) < 100

    def make(self, item):
        """Draws all nuclei of an image into one map; later ones cover earlier ones."""
        tree = self.source[item.part]
        image = files.read_image(tree, item.image)
        instances = np.zeros(image.shape[:2], np.uint16)
        for number, name in enumerate(item.masks, start=1):
            instances[masks.read_ids(tree, name, image) > 0] = number
        label = (instances > 0).astype(np.uint8)
        name = files.stem(item.image)
        return {"image": image, "label": label, "instances": instances, "name": name}

    def describe(self):
        """Returns the class names."""
        return {"classes": CLASSES}


def _digest(name: str) -> str:
    return hashlib.sha256(files.stem(name).encode()).hexdigest()
