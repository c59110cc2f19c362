"""Data sets through TFDS builders, batches through Grain, augmentations in JAX."""

from segjax.data import augment as augment
from segjax.data.builders.digits import digits as digits
from segjax.data.dataset import Dataset as Dataset
from segjax.data.pipeline import Pipeline as Pipeline
