"""Data sets through TFDS builders, batches through Grain, augmentations in JAX."""

from segjax.data import augment as augment
from segjax.data.arrays import from_arrays as from_arrays
from segjax.data.builders.camvid import camvid as camvid
from segjax.data.builders.digits import digits as digits
from segjax.data.builders.dsb2018 import dsb2018 as dsb2018
from segjax.data.builders.isbi2012 import isbi2012 as isbi2012
from segjax.data.coco import coco as coco
from segjax.data.dataset import Dataset as Dataset
from segjax.data.folder import folder as folder
from segjax.data.from_tfds import from_tfds as from_tfds
from segjax.data.image_file import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from segjax.data.image_file import read_image as read_image
from segjax.data.instance_folder import instance_folder as instance_folder
from segjax.data.pipeline import Pipeline as Pipeline
from segjax.ops import ClipWindow as ClipWindow
from segjax.ops import Normalize as Normalize
from segjax.ops import clip_window as clip_window
from segjax.ops import normalize as normalize
from segjax.typing import Field as Field
