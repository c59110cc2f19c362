"""Images with COCO annotations as a data set."""

import os
import sys
from collections.abc import Sequence

import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import annotations, base, files, sources, splits
from segjax.data.objects import coco_mask, draw_label, encode_objects
from segjax.errors import UserError


def coco(
    source: str | os.PathLike,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> dataset.Dataset:
    """Loads images with COCO annotation files, in any of the usual layouts.

        source/annotations.json            source/images/a.jpg
        source/train/annotations.json      source/train/images/a.jpg   (also val, test)
        source/train/_annotations.coco.json   source/train/a.jpg
        source/annotations/instances_train2017.json   source/train2017/a.jpg
        source/annotations/instances_train.json       source/images/a.jpg

    A `file_name` may be a path of another machine: its longest end that is a file below
    the image folder counts.

    Args:
        source: The folder, or a zip of it.
        validation: Fraction of the images held out for validation, in [0, 1); used if
            there is no validation folder.
        test: Fraction held out for testing, likewise; ignored if there are split
            folders.
        seed: Chooses which images are held out.
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Returns:
        Class 0 is background; the categories follow in the order of their ids.
        Examples have `objects` besides `image`, `label` and `name`: masks that
        pycocotools decodes from polygons and run lengths, with class and crowd. In
        `label`, smaller objects are drawn over larger ones, and pixels of crowds that
        no object covers are ignored. Annotations without a pixel, such as a polygon
        thinner than a pixel, are left out, and counted on standard error.

    Raises:
        ValueError: If an annotation is malformed or does not match its image or the
            categories, a file is missing or broken, or pycocotools is not installed;
            the message names it.

    Reference:
        Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312.
    """
    coco_mask()  # Missing before anything is read.
    splits.check_fractions(validation, test)
    path = sources.existing(source, annotations.NEEDS)
    tree = sources.Folder(path) if path.is_dir() else sources.Zip(path, path.stem)
    options = splits.SplitOptions(
        tree=tree, validation=validation, test=test, seed=seed
    )
    directory = dataset.prepare(
        Coco, data_dir=data_dir, source=options, key=options.key()
    )
    return dataset.view(directory, "coco")


class Coco(base.Builder, skip_registration=True):
    """Reads all annotation files first, then images one by one."""

    VERSION = tfds.core.Version("2.0.0")
    DESCRIPTION = "A user's own images and COCO annotations."
    FEATURES = base.ANY_SEMANTIC | {"objects": tfds.features.Text()}
    source: splits.SplitOptions

    def plan(self):
        """Reads and checks all annotations and assigns the images to splits."""
        source = self.source
        parts = annotations.find(source.tree)
        read = {k: annotations.read(source.tree, *v) for k, v in parts.items()}
        annotations.check_disjoint(source.tree, read)
        self._classes = annotations.class_names(source.tree, parts, read)
        self._empty: list[str] = []
        splits = {split: part.images for split, part in read.items()}
        test = source.test if list(splits) == ["train"] else 0.0
        return source.complete(splits, test=test)

    def where(self, item, name):
        """Returns the path of the image."""
        del name
        return self.source.tree.shown(item.file)

    def make(self, item):
        """Reads one image and draws its objects."""
        tree = self.source.tree
        image = files.read_image(tree, item.file)
        height, width = image.shape[:2]
        if (height, width) != item.size:
            raise UserError(
                f"{tree.shown(item.file)} is {width}x{height} pixels"
                f"{files.turned(tree, item.file, item.size)}: needed "
                f"{item.size[1]}x{item.size[0]}, as its annotations say; export them "
                f"again."
            )
        ones, rles = self._with_pixels(item)
        classes = [self._classes.index(one["category"]) for one in ones]
        crowd = [bool(one.get("iscrowd", 0)) for one in ones]
        return {
            "image": image,
            "label": draw_label(rles, classes, crowd, item.size, len(self._classes)),
            "objects": encode_objects(rles, classes, crowd),
            "name": item.name,
        }

    def _with_pixels(self, item: annotations.Image) -> tuple[list, list]:
        """Returns the annotations with at least one pixel, and their run lengths."""
        ones, rles = [], []
        for one in item.annotations:
            found = annotations.rle(one, item.size)
            if coco_mask().area(found):
                ones.append(one)
                rles.append(found)
            else:
                self._empty.append(f"{one['id']} of {item.name}")
        return ones, rles

    def describe(self):
        """Returns the class names."""
        if self._empty:
            print(_left_out(self._empty), file=sys.stderr)
        return {"classes": self._classes}


def _left_out(empty: Sequence[str]) -> str:
    few = ", ".join(sorted(empty)[:3]) + (", ..." if len(empty) > 3 else "")
    return (
        f"note: annotations without a pixel are left out: {len(empty)} "
        f"(annotation {few})."
    )
