"""From images of any size to detections."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from segjax import ops
from segjax.typing import Array, PyTree

Detector = Callable[[np.ndarray], Any]


def make_detector(
    apply: Callable, variables: PyTree, *, multiple: int = 32
) -> Detector:
    """Compiles a model that detects for single images.

    Images are padded below and to the right up to a multiple, so that images of
    similar size share one program; the model is told their true size.

    Args:
        apply: `model.apply` of a linen module that takes `image` and `size`.
        variables: Parameters and other collections.
        multiple: Pixels.

    Returns:
        `image uint8 or float [H, W, 3] -> outputs` of a batch of one, on the host.
    """

    @jax.jit
    def outputs(variables: PyTree, image: Array, size: Array) -> Any:
        return apply(variables, image=ops.to_float(image), size=size, train=False)

    def detect(image: np.ndarray) -> Any:
        height, width = image.shape[:2]
        below, right = (ops.round_up(n, multiple) - n for n in (height, width))
        padded = np.pad(image, ((0, below), (0, right), (0, 0)))
        size = np.array([[height, width]], np.int32)
        return jax.device_get(outputs(variables, padded[None], size))

    return detect
