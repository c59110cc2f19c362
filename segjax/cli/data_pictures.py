"""The pictures of `segjax data show`."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from segjax import train, viz
from segjax.train import step_parts

_CROPS = 12
_PERCENTILES = (0.5, 99.5)


def overlay(example: Mapping[str, Any], colors: np.ndarray) -> np.ndarray:
    """Draws classes, or objects if there are any, over the image of an example."""
    image, label = np.asarray(example["image"]), np.asarray(example["label"])
    if "instances" in example:
        return viz.overlay_objects(image, np.asarray(example["instances"]))
    valid = label < len(colors)
    return viz.overlay(image, np.where(valid, label, 0), colors, valid=valid)


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Both pictures side by side, at the larger height."""
    height = max(len(one), len(other))
    padded = [
        np.pad(x, ((0, height - len(x)), (0, 0), (0, 0)), constant_values=255)
        for x in (one, other)
    ]
    gap = np.full((height, 6, 3), 255, np.uint8)
    return np.concatenate([padded[0], gap, padded[1]], axis=1)


def training_crops(
    experiment: train.Experiment, colors: np.ndarray
) -> list[viz.Figure]:
    """Draws crops of the first epoch as the network sees them: augmented.

    Brightness and color are comparable between the pictures: all are scaled by the
    range of the same crops before augmentation.

    Args:
        experiment: With the data, the preprocessing and the augmentation.
        colors: uint8 [C, 3] of the classes.
    """
    pipeline, seed = experiment.data, experiment.config.seed
    batches = pipeline.train_batches(batch_size=_CROPS, seed=seed)
    with contextlib.closing(batches):
        prepared = experiment.forward.prepare(next(batches))
    seen = step_parts.augmented(
        experiment.augment,
        jax.random.key(seed),
        prepared,
        fields=step_parts.fields_of(experiment),
    )
    before, after = np.asarray(prepared["image"]), np.asarray(seen["image"])
    low, high = np.percentile(before, _PERCENTILES, axis=(0, 1, 2))
    scaled = (after - low) / np.where(high > low, high - low, 1)
    pictures = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    drawn = []
    for i, picture in enumerate(pictures):
        valid, label = np.asarray(seen["valid"][i]), np.asarray(seen["label"][i])
        example = {"image": picture, "label": np.where(valid, label, len(colors))}
        if "masks" in seen:
            ids = np.zeros(label.shape, np.int32)
            for number, mask in enumerate(np.asarray(seen["masks"][i]), start=1):
                ids[mask] = number
            example["instances"] = ids
        drawn.append(viz.Figure(overlay(example, colors), f"crop {i + 1}", ""))
    return drawn
