"""Data sets through TFDS builders, batches through Grain, augmentations in JAX."""

from segjax.data import augment
from segjax.data.arrays import from_arrays
from segjax.data.builders.camvid import camvid
from segjax.data.builders.digits import digits
from segjax.data.builders.drive import drive
from segjax.data.builders.dsb2018 import dsb2018
from segjax.data.builders.isbi2012 import isbi2012
from segjax.data.coco import coco
from segjax.data.crops import ClassCrops, CropPlacement, ObjectCrops
from segjax.data.dataset import Dataset
from segjax.data.folder import folder
from segjax.data.from_tfds import from_tfds
from segjax.data.image_file import IMAGE_SUFFIXES, read_image
from segjax.data.instance_folder import instance_folder
from segjax.data.maps import instance_depth, with_map
from segjax.data.pipeline import Pipeline
from segjax.data.subsets import join_splits, subset
from segjax.ops import ClipWindow, Normalize, clip_window, normalize
from segjax.typing import Field

__all__ = [
    "IMAGE_SUFFIXES",
    "ClassCrops",
    "ClipWindow",
    "CropPlacement",
    "Dataset",
    "Field",
    "Normalize",
    "ObjectCrops",
    "Pipeline",
    "augment",
    "camvid",
    "clip_window",
    "coco",
    "digits",
    "drive",
    "dsb2018",
    "folder",
    "from_arrays",
    "from_tfds",
    "instance_depth",
    "instance_folder",
    "isbi2012",
    "join_splits",
    "normalize",
    "read_image",
    "subset",
    "with_map",
]
