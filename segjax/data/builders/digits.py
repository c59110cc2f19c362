"""Scenes of handwritten digits, composed of 1,797 real ones that come with segjax.

Reference:
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0: its test set, as
    scikit-learn's `load_digits` has it.
"""

import functools
import importlib.resources
import os
from typing import Any

import numpy as np
import scipy.ndimage
import tensorflow_datasets as tfds

from segjax.data import dataset
from segjax.data.builders import base

CLASSES = ("background", *map(str, range(10)))
SCENES = {"train": 6_000, "validation": 500, "test": 500}
SPLIT_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Fractions of the 1,797 source digits in each split; splits share no digit."""

SIZE = 32
_MAX_OVERLAP = 2  # Pixels of earlier digits that a new digit may cover.
_MAX_TRIES = 30


def digits(*, data_dir: str | os.PathLike | None = None) -> dataset.Dataset:
    """Scenes of 32x32 pixels with one to three handwritten digits each.

    Digits are 12 to 18 pixels high, rotated by up to 12 degrees and tinted; they may
    touch but hardly overlap; the background is noisy. Train, validation and test
    (6,000, 500 and 500 scenes) share no handwritten digit.

    Args:
        data_dir: Folder of prepared data; see `dataset.data_root`.

    Returns:
        Label 0 is background, digit d is d + 1. Besides `instances`, examples have
        boxes float32 [N, 4] (x0, y0, x1, y1 in pixels, edges at whole numbers) and
        classes int64 [N] in [1, 10], of instances 1 to N in that order.
    """
    directory = dataset.prepare(Digits, data_dir=data_dir)
    return dataset.view(directory, "digits")


class Digits(base.Builder, skip_registration=True):
    """Composes the scenes, which are identical for a given version."""

    VERSION = tfds.core.Version("1.1.0")  # Increase it if any pixel changes.
    DESCRIPTION = (
        "Scenes composed of handwritten digits (UCI Machine Learning Repository)."
    )
    FEATURES = base.SEMANTIC | {
        "instances": base.INSTANCES,
        "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
        "classes": tfds.features.Tensor(shape=(None,), dtype=np.int64),
    }

    def plan(self):
        """Numbers the scenes of each split."""
        return {
            split: [(split, number) for number in range(count)]
            for split, count in SCENES.items()
        }

    def make(self, item):
        """Composes one scene from a random generator of its own."""
        return scene(*item)

    def describe(self):
        """Returns the class names."""
        return {"classes": CLASSES}


@functools.cache
def source_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns ink in [0, 1], float [1797, 8, 8], and the digits, int [1797]."""
    source = importlib.resources.files("segjax.data.builders") / "digits.npz"
    with source.open("rb") as file, np.load(file) as arrays:
        return arrays["ink"] / 16, arrays["digits"].astype(np.int64)


@functools.cache
def source_indices(split: str) -> np.ndarray:
    """Returns the indices of the handwritten digits that a split may use."""
    order = np.random.default_rng(0).permutation(len(source_digits()[0]))
    sizes = [round(fraction * len(order)) for fraction in SPLIT_FRACTIONS.values()]
    ends = np.cumsum(sizes)[:-1]
    return dict(zip(SPLIT_FRACTIONS, np.split(order, ends), strict=True))[split]


def scene(split: str, number: int) -> dict[str, Any]:
    """Composes one scene: later digits cover earlier ones."""
    rng = np.random.default_rng([1, list(SCENES).index(split), number])
    image = _background(rng)
    instances = np.zeros((SIZE, SIZE), np.uint16)
    classes: list[int] = []
    for _ in range(rng.integers(1, 4)):
        index = rng.choice(source_indices(split))
        ink = _draw(source_digits()[0][index], rng)
        place = _place(ink > 0.4, instances, rng)
        if place is None:
            continue  # No space left: the scene has fewer digits.
        classes.append(int(source_digits()[1][index]) + 1)
        window = tuple(slice(p, p + n) for p, n in zip(place, ink.shape, strict=True))
        tint = rng.uniform(160, 255) * rng.uniform(0.75, 1, 3)
        image[window] += ink[..., None] * (tint - image[window])
        instances[window][ink > 0.4] = len(classes)
    image += rng.normal(0, 8, image.shape)
    return {
        "image": np.clip(image.round(), 0, 255).astype(np.uint8),
        "label": np.array([0, *classes], np.uint8)[instances],
        "instances": instances,
        "boxes": _boxes(instances, len(classes)),
        "classes": np.array(classes, np.int64),
        "name": f"{split}-{number:04d}",
    }


def _background(rng: np.random.Generator) -> np.ndarray:
    """Makes a dark tint with a slight gradient, float [32, 32, 3]."""
    ramp = np.linspace(-1, 1, SIZE)
    slope = rng.uniform(-15, 15, (2, 3))
    tint = rng.uniform(15, 70, 3)
    return tint + ramp[:, None, None] * slope[0] + ramp[None, :, None] * slope[1]


def _draw(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scales and rotates the ink of one digit; float [H, W] in [0, 1], trimmed."""
    scale = rng.uniform(12, 18) / 8
    angle = np.deg2rad(rng.uniform(-12, 12))
    cosine, sine = np.cos(angle), np.sin(angle)
    # From a pixel of the 26x26 canvas (which holds rotated 18x18) to the 8x8 ink.
    matrix = np.array([[cosine, sine], [-sine, cosine]]) / scale
    offset: Any = np.full(2, 3.5) - matrix @ np.full(2, 12.5)
    canvas = scipy.ndimage.affine_transform(
        ink, matrix, offset, output_shape=(26, 26), order=3, mode="grid-constant"
    )
    # Rounded, so that rounding differences between machines change no pixel.
    canvas = np.clip(canvas, 0, 1).round(3)
    rows, columns = (np.flatnonzero((canvas > 0.4).any(axis)) for axis in (1, 0))
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    mask: np.ndarray, instances: np.ndarray, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Finds a top left corner where the digit covers almost no other digit."""
    height, width = mask.shape
    for _ in range(_MAX_TRIES):
        top, left = rng.integers(0, [SIZE - height + 1, SIZE - width + 1])
        below = instances[top : top + height, left : left + width]
        if np.count_nonzero(below[mask]) <= _MAX_OVERLAP:
            return int(top), int(left)
    return None


def _boxes(instances: np.ndarray, count: int) -> np.ndarray:
    """Computes tight boxes around the visible part of each instance, [N, 4]."""
    boxes = np.zeros((count, 4), np.float32)
    for i, found in enumerate(scipy.ndimage.find_objects(instances)):
        rows, columns = found
        boxes[i] = columns.start, rows.start, columns.stop, rows.stop
    return boxes
