"""Annotations of other tools: one reader a format, and a writer of plain folders."""

from segjax.data.formats.ade20k import ade20k
from segjax.data.formats.cityscapes import cityscapes
from segjax.data.formats.coco import coco
from segjax.data.formats.cvat import cvat
from segjax.data.formats.items import Annotated, Drawn, Item
from segjax.data.formats.labelme import labelme
from segjax.data.formats.nifti import nifti
from segjax.data.formats.pascal_voc import pascal_voc
from segjax.data.formats.writing import write
from segjax.data.formats.yolo import yolo

__all__ = [
    "Annotated",
    "Drawn",
    "Item",
    "ade20k",
    "cityscapes",
    "coco",
    "cvat",
    "labelme",
    "nifti",
    "pascal_voc",
    "write",
    "yolo",
]
