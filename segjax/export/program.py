"""The function that an exported file holds: stored images in, results out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from segjax import models, ops
from segjax.errors import UserError
from segjax.forward import Forward
from segjax.typing import Array, PyTree

Program = Callable[[Array, Array], dict[str, Array]]
"""`(image [B, H, W, K] as stored, size int32 [B, 2]) -> {name: array}`."""

INPUTS = {
    "image": "the image as stored, in the top left of its array; the rest is not read",
    "size": "height and width of each image, at most those of the array",
}
_LABELS = "id of the most probable class; the largest number of the dtype outside size"
SEMANTIC = {
    "probabilities": "of the classes, which sum to 1; 0 outside size",
    "labels": _LABELS,
}
MULTILABEL = {
    "probabilities": "of each class on its own; 0 outside size",
    "labels": f"{_LABELS}, and where no class has a probability of at least 0.5",
}
DETECTION = {
    "boxes": "x0, y0, x1, y1 in pixels, edges at whole numbers; best object first",
    "scores": "probability of the object's class",
    "classes": "id of the object's class, from 1",
    "object_mask": "False for empty slots, whose other results are 0",
    "masks": "probability of the object at each pixel; at least 0.5 is the object",
    "labels": "number of the topmost object with a score of at least 0.5, from 1; 0 "
    "for none",
}


def meanings(task: str) -> dict[str, str]:
    """Returns what each output of a program means, by name."""
    tasks = {"semantic": SEMANTIC, "multilabel": MULTILABEL, "instance": DETECTION}
    return tasks[task]


def make_program(
    forward: Forward, variables: PyTree, description: Mapping[str, Any]
) -> Program:
    """Makes the pure function that `segjax.export.save` writes.

    An image is padded by reflection as by `inference.Predictor`: to multiples of the
    model's `multiple`, and by its margin. So results are those of `Model.predict` for
    an image whose sides are rounded up only.

    Args:
        forward: The network with its preprocessing.
        variables: Parameters and other collections, which become constants.
        description: Content of `model.json`.

    Returns:
        The program. Its outputs are those that `meanings` lists for the task.
    """
    multiple, margin = description["multiple"], forward.margin

    def program(image: Array, size: Array) -> dict[str, Array]:
        padded = _reflect(image, size, multiple=multiple, margin=margin)
        constants = jax.tree.map(jnp.asarray, variables)
        outputs, _ = forward(constants, {"image": padded, "size": size})
        shape = image.shape[1], image.shape[2]
        if isinstance(outputs, models.Detections):
            return _detections(outputs, size, shape)
        if not isinstance(outputs, jax.Array):
            raise UserError(
                f"Export needs a model that returns logits [B, H, W, C] or "
                f"models.Detections, got {type(outputs).__name__}."
            )
        logits = outputs[:, : shape[0], : shape[1]]
        return _semantic(logits, size, multilabel=description["task"] == "multilabel")

    return program


def _semantic(logits: Array, size: Array, *, multilabel: bool) -> dict[str, Array]:
    probs = jax.nn.sigmoid(logits) if multilabel else jax.nn.softmax(logits)
    dtype = jnp.uint8 if logits.shape[-1] <= 255 else jnp.uint16
    labels = jnp.argmax(probs, axis=-1).astype(dtype)
    found = _inside(size, (logits.shape[1], logits.shape[2]))
    probs = jnp.where(found[..., None], probs, 0)
    if multilabel:
        found &= probs.max(axis=-1) >= 0.5
    labels = jnp.where(found, labels, ops.ignore_index(dtype))
    return {"probabilities": probs, "labels": labels}


def _detections(
    outputs: models.Detections, size: Array, shape: tuple[int, int]
) -> dict[str, Array]:
    def paste(masks: Array, boxes: Array) -> Array:
        return ops.paste_masks(masks, boxes, size=shape, aligned=outputs.aligned)

    masks = jax.vmap(paste)(outputs.masks, outputs.boxes)
    inside = outputs.object_mask[..., None, None] & _inside(size, shape)[:, None]
    masks = jnp.where(inside, masks, 0)
    # Best first, so that the first object of a pixel is the topmost.
    drawn = (masks >= 0.5) & (outputs.scores >= 0.5)[..., None, None]
    labels = jnp.where(drawn.any(axis=1), jnp.argmax(drawn, axis=1) + 1, 0)
    return {
        "boxes": outputs.boxes,
        "scores": outputs.scores,
        "classes": outputs.classes,
        "object_mask": outputs.object_mask,
        "masks": masks,
        "labels": labels.astype(jnp.uint16),
    }


def _inside(size: Array, shape: tuple[int, int]) -> Array:
    """True [B, H, W] at the pixels of the images."""
    rows = jnp.arange(shape[0])[None, :, None] < size[:, 0, None, None]
    columns = jnp.arange(shape[1])[None, None, :] < size[:, 1, None, None]
    return rows & columns


def _reflect(image: Array, size: Array, *, multiple: int, margin: int) -> Array:
    """Pads each image [H, W, K] from its own size, like `np.pad(mode="reflect")`."""
    height, width = (
        (n + multiple - 1) // multiple * multiple for n in image.shape[1:3]
    )
    rows = _mirror(size[:, 0], height, margin)
    columns = _mirror(size[:, 1], width, margin)

    def one(x: Array, rows: Array, columns: Array) -> Array:
        return jnp.take(jnp.take(x, rows, axis=0), columns, axis=1)

    return jax.vmap(one)(image, rows, columns)


def _mirror(length: Array, total: int, margin: int) -> Array:
    """Positions [B, total + 2 * margin] in an axis of `length` [B] pixels."""
    position = jnp.arange(total + 2 * margin, dtype=jnp.int32)[None] - margin
    last = jnp.maximum(length[:, None] - 1, 0)
    index = position % jnp.maximum(2 * last, 1)
    return jnp.minimum(index, 2 * last - index)
