"""Names of a VGG-16's tensors, which torchvision numbers by layer."""

from collections.abc import Mapping

import numpy as np

from segjax.interop.conversion import Names

_CONVS = (2, 2, 3, 3, 3)


def vgg_names(*, normed: bool) -> Names:
    """Names of torchvision's layers by those of `VGG` and `FCN`.

    Args:
        normed: Whether batch norms follow the convolutions.
    """
    names = []
    for stage, i, layer in _layers(normed=normed):
        path = rf"^(?:encoder/)?stage{stage}"
        norm = "norm" if i == 0 else f"norm{i}"
        names.append((rf"{path}/Conv_{i}$", f"features.{layer}"))
        names.append((rf"{path}/{norm}$", f"features.{layer + 1}"))
    return names


def fold_biases(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Subtracts a convolution's bias from the mean of the batch norm after it.

    segjax's convolutions have no bias there. Evaluation is the same.
    """
    folded = dict(tensors)
    for _, _, layer in _layers(normed=True):
        bias, mean = f"features.{layer}.bias", f"features.{layer + 1}.running_mean"
        if bias in folded and mean in folded:
            folded[mean] = folded[mean] - folded.pop(bias)
    return folded


def _layers(*, normed: bool) -> list[tuple[int, int, int]]:
    """Stage, convolution of the stage, and torchvision's number of its layer."""
    layers, number = [], 0
    for stage, convs in enumerate(_CONVS):
        for i in range(convs):
            layers.append((stage + 1, i, number))
            number += 3 if normed else 2  # A norm, and a ReLU.
        number += 1  # Pooling.
    return layers
