"""DRIVE: blood vessels in photographs of the retina."""

import os
import re

import numpy as np
import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import base, files, masks
from segjax.data.builders.sources import Tree
from segjax.errors import UserError
from segjax.typing import IGNORE_INDEX

CLASSES = ("background", "vessel")
_SPLITS = {"training": "train", "test": "test"}
_IMAGES = 20


def drive(
    source: str | os.PathLike | None = None,
    *,
    validation: int = 4,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """DRIVE: 20 train and 20 test images of 565x584, vessels by the first observer.

    Outside of the field of view, given by the data set's masks, labels are ignored.
    Published figures of methods that predict background there, or whose pixels there
    are counted as well, differ by what they predict outside.

    Args:
        source: A folder with DRIVE.zip or DRIVE/, or one of these itself; None if it
            was prepared before.
        validation: The number of training images that are held out, the last ones; 0
            for none.
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Reference:
        Staal et al., Ridge-based vessel segmentation in color images of the retina,
        IEEE Transactions on Medical Imaging 23(4), 2004.
    """
    if not 0 <= validation < _IMAGES:
        raise UserError(f"validation must be 0 to {_IMAGES - 1}, got {validation}.")
    directory = dataset.prepare_source(Drive, source, data_dir=data_dir)
    splits = {"train": "train", "test": "test"}
    if validation:
        kept = _IMAGES - validation
        splits |= {"train": f"train[:{kept}]", "validation": f"train[{kept}:]"}
    return dataset.view(directory, f"drive/validation{validation}", splits)


class Drive(base.Builder, skip_registration=True):
    """Reads `training/images/NN_*.tif`, `1st_manual/NN_*.gif` and `mask/NN_*.gif`."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = "DRIVE, vessels of the retina, first observer."
    FEATURES = base.SEMANTIC
    PARTS = ("DRIVE",)
    FOLDERS = tuple(
        f"{part}/{kind}"
        for part in _SPLITS
        for kind in ("images", "1st_manual", "mask")
    )
    NEEDS = (
        "DRIVE.zip or the folders training and test, each with images, 1st_manual and "
        "mask (from drive.grand-challenge.org)"
    )

    def plan(self):
        """Groups image, vessels and field of view by their number."""
        tree = self.source["DRIVE"]
        splits = {}
        for part, split in _SPLITS.items():
            kinds = ("images", "1st_manual", "mask")
            found = [_by_number(tree, f"{part}/{kind}") for kind in kinds]
            for kind, others in zip(kinds, found, strict=True):
                missing = sorted(set().union(*found) - others.keys())
                if missing or len(others) != _IMAGES:
                    what = f" ({missing[0]} is missing)" if missing else ""
                    raise UserError(
                        f"{tree.shown(f'{part}/{kind}')} holds {len(others)} images"
                        f"{what}: needed {_IMAGES}; download the data set again, with "
                        f"the manual segmentations of both parts."
                    )
            splits[split] = [tuple(f[n] for f in found) for n in sorted(found[0])]
        return splits

    def make(self, item):
        """Reads one image; 255 is vessel, and outside of the mask is ignored."""
        tree = self.source["DRIVE"]
        image = files.read_image(tree, item[0])
        vessels, inside = (self._binary(name, image) for name in item[1:])
        label = np.where(inside > 0, vessels, IGNORE_INDEX).astype(np.uint8)
        return {"image": image, "label": label, "name": files.stem(item[0])}

    def _binary(self, name: str, image: np.ndarray) -> np.ndarray:
        tree = self.source["DRIVE"]
        # By color: the indices of a GIF's palette depend on the program that wrote it.
        ids = masks.read_colors(tree, name, image) & 255
        return masks.to_labels(tree, name, ids, {0: 0, 255: 1}, fix="0 or 255")

    def describe(self):
        """Returns the class names."""
        return {"classes": CLASSES}


def _by_number(tree: Tree, folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files.images(tree, folder):
        number = re.match(r"\d+", files.stem(name))
        if number is None or number[0] in found:
            raise UserError(
                f"{tree.shown(name)} has no number of its own: needed one file for "
                f"each image, such as 21_training.tif; remove or rename it."
            )
        found[number[0]] = name
    return found
