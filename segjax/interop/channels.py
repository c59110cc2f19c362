"""First convolutions for images that are not RGB."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.errors import UserError
from segjax.typing import PyTree


def with_channels(variables: PyTree, path: str, *, channels: int) -> dict[str, Any]:
    """Adapts the first convolution of an RGB network to images of K channels.

        with_channels(interop.load("resnet34"), "params/conv1/conv/kernel", channels=5)

    Args:
        variables: Collections, as of `load`.
        path: The kernel [H, W, 3, O] of the first convolution.
        channels: K, the channels of the images; see `repeat_channels`.

    Returns:
        The variables with the kernel [H, W, K, O].

    Raises:
        ValueError: If there is no such kernel, or it is not of RGB.
    """
    *modules, name = path.split("/")
    adapted = dict(variables)
    tree: Any = adapted
    for module in modules:
        inner = tree.get(module)
        tree[module] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[module]
    if np.ndim(tree.get(name)) != 4 or tree[name].shape[2] != 3:
        has = list(np.shape(tree[name])) if name in tree else "nothing"
        raise UserError(
            f"{path} needs to be a kernel [H, W, 3, O], the variables have {has} "
            f"there. Name the first convolution."
        )
    tree[name] = repeat_channels(np.asarray(tree[name]), channels)
    return adapted


def repeat_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """[H, W, 3, O] -> [H, W, K, O].

    For one channel, the sum over RGB, so that a gray image has the features of an RGB
    image with equal channels. For more, those of R, G, B, R, ..., times 3 / K.
    """
    if channels == 3:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.float32(3 / channels)
