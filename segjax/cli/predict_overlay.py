"""Draws what `segjax predict` computed."""

import numpy as np

from segjax import inference, viz
from segjax.cli.predict_work import Result, Work
from segjax.inference.objects import Objects


def overlay(
    work: Work, image: np.ndarray, result: Result, *, max_pixels: int = 2**24
) -> np.ndarray:
    """Draws a result on its image, reduced in size beyond `max_pixels`."""
    model, labels = work.models[0], result.labels
    step = 1
    while labels.size > max_pixels * step**2:
        step += 1
    if work.detect is None:
        return inference.Prediction(
            image=image[::step, ::step],
            classes=model.classes,
            palette=model.palette,
            labels=labels[::step, ::step],
            multilabel=work.multilabel,
        ).overlay()
    assert result.objects is not None
    found = result.objects.take(np.flatnonzero(result.objects.scores >= 0.5))
    if step == 1 and len(found) * labels.size <= 2**28:
        return viz.instances(image, dense(found), classes=model.classes)
    # Too many masks of the image's size: colors by number, without boxes.
    return viz.overlay_objects(image[::step, ::step], labels[::step, ::step])


def dense(found: Objects) -> dict[str, np.ndarray]:
    """Converts objects to a result of `models.instances`, with masks of full size."""
    masks = np.zeros((len(found), *found.size), np.float32)
    for whole, mask, (y, x) in zip(masks, found.masks, found.corners, strict=True):
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return {
        "boxes": found.boxes,
        "scores": found.scores,
        "classes": found.classes,
        "masks": masks,
    }
