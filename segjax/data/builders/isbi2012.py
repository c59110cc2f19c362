"""ISBI 2012: membranes in electron microscopy, a data set of the U-Net paper."""

import os

import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import base, files, masks
from segjax.errors import UserError

CLASSES = ("membrane", "cell")
SLICES = 30
FOLDS = 5


def isbi2012(
    source: str | os.PathLike | None = None,
    *,
    fold: int = 4,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """ISBI 2012: 30 slices of 512x512, 24 for training and 6 held out.

    All folds are views of the same prepared data. There is no test split: the labels of
    the challenge's test slices are not public.

    Args:
        source: A folder with isbi2012.zip or isbi2012/, or one of these itself; None if
            it was prepared before.
        fold: Holds out slices 6 * fold to 6 * fold + 5 as validation; 0 to 4.
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Reference:
        Arganda-Carreras et al., Crowdsourcing the creation of image segmentation
        algorithms for connectomics, Frontiers in Neuroanatomy 9:142, 2015.
    """
    if not 0 <= fold < FOLDS:
        raise UserError(f"fold must be 0 to {FOLDS - 1}, got {fold}.")
    directory = dataset.prepare_source(Isbi2012, source, data_dir=data_dir)
    size = SLICES // FOLDS
    start, stop = fold * size, (fold + 1) * size
    # TFDS rejects empty slices, so the first and the last fold have one part.
    around = [f"labeled[:{start}]"] * (start > 0)
    around += [f"labeled[{stop}:]"] * (stop < SLICES)
    splits = {"train": "+".join(around), "validation": f"labeled[{start}:{stop}]"}
    return dataset.view(directory, f"isbi2012/fold{fold}", splits)


class Isbi2012(base.Builder, skip_registration=True):
    """Reads `train/image/N.png` and `train/label/N.png`, N = 0 to 29."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = "ISBI 2012 EM segmentation challenge, the labeled slices."
    FEATURES = base.SEMANTIC
    PARTS = ("isbi2012",)
    FOLDERS = ("train/image", "train/label")
    NEEDS = (
        "isbi2012.zip or the folders train/image and train/label with 0.png to 29.png"
        " (the ISBI 2012 EM challenge's slices, as in github.com/zhixuhao/unet)"
    )

    def plan(self):
        """Pairs slices with labels, in the order of the stack."""
        tree = self.source["isbi2012"]
        found = {
            files.stem(image): (image, label)
            for image, label in files.pairs(tree, "train/image", "train/label")
        }
        if set(found) != set(map(str, range(SLICES))):
            raise UserError(
                f"{tree.shown('train/image')} holds {len(found)} slices: needed 0.png "
                f"to {SLICES - 1}.png for the folds; download it again."
            )
        return {"labeled": [found[str(n)] for n in range(SLICES)]}

    def make(self, item):
        """Reads one pair; 255 is cell, 0 is membrane."""
        tree = self.source["isbi2012"]
        image = files.read_image(tree, item[0])
        ids = masks.read_ids(tree, item[1], image)
        fix = "0 is membrane, 255 is cell"
        label = masks.to_labels(tree, item[1], ids, {0: 0, 255: 1}, fix=fix)
        return {"image": image, "label": label, "name": files.stem(item[0])}

    def describe(self):
        """Returns the class names."""
        return {"classes": CLASSES}
