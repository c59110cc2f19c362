"""From images of any size to label maps of the same size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from segjax import ops
from segjax.typing import Array, PyTree

Predictor = Callable[[np.ndarray], np.ndarray]


def make_predictor(
    apply: Callable, variables: PyTree, *, multiple: int = 32
) -> Predictor:
    """Compiles a semantic model for single images.

    Images are extended by their mirror image, below and to the right up to a
    multiple, so that images of similar size share one program; and on all sides
    where the model trims its border, as a U-Net with valid padding does (the
    overlap-tile of its paper), so that every pixel gets a label.

    Args:
        apply: `model.apply` of a linen module that returns logits.
        variables: Parameters and other collections.
        multiple: Pixels.

    Returns:
        `image uint8 or float [H, W, 3] -> probabilities float32 [H, W, C]`.
    """

    @jax.jit
    def probabilities(variables: PyTree, image: Array) -> Array:
        logits = apply(variables, ops.to_float(image), train=False)
        return jax.nn.softmax(logits)

    def predict(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        size = (ops.round_up(height, multiple), ops.round_up(width, multiple))
        border = _border(apply, variables, size)
        wide = _mirror(image, border, size)
        return np.asarray(probabilities(variables, wide[None]))[0, :height, :width]

    return predict


def labels(probs: np.ndarray) -> np.ndarray:
    """[H, W, C] probabilities to uint8 [H, W] class ids, the first of equals."""
    return np.argmax(probs, axis=-1).astype(np.uint8)


def _border(
    apply: Callable, variables: PyTree, size: tuple[int, int]
) -> tuple[int, int]:
    """Pixels that the model trims in all from (height, width), found from shapes."""
    large = tuple(side + 1024 for side in size)
    image = jax.ShapeDtypeStruct((1, *large, 3), jnp.float32)
    out = jax.eval_shape(lambda v, x: apply(v, x, train=False), variables, image)
    return large[0] - out.shape[1], large[1] - out.shape[2]


def _mirror(
    image: np.ndarray, border: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """[H, W, 3] to [size + border], the image at border / 2 from the top left."""
    pads = []
    for axis in (0, 1):
        before = border[axis] // 2
        after = size[axis] + border[axis] - before - image.shape[axis]
        pads.append((before, after))
    # `reflect` needs two pixels to mirror; one is repeated.
    rows = np.pad(image, (pads[0], (0, 0), (0, 0)), _mode(image.shape[0]))
    return np.pad(rows, ((0, 0), pads[1], (0, 0)), _mode(image.shape[1]))


def _mode(pixels: int):
    return "reflect" if pixels > 1 else "edge"
