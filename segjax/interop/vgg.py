"""Names of a VGG-16's tensors by stage, which torchvision numbers by layer."""

import re
from collections.abc import Mapping

import numpy as np

_CONVS = (2, 2, 3, 3, 3)
_LAYER = re.compile(r"features\.(\d+)\.(\w+)$")


def vgg_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames `features.*` to `stage1.0.conv.*`, `stage1.0.norm.*` and so on.

    A bias that a batch norm follows is subtracted from the norm's mean, since segjax's
    convolutions have no bias there. Evaluation is the same.

    Args:
        tensors: Arrays by name; others than `features.*` stay. A layer beyond those of
            a VGG-16 keeps its name.
    """
    found = {name: m for name in tensors if (m := _LAYER.match(name))}
    convs = sorted(
        int(m[1]) for name, m in found.items() if np.ndim(tensors[name]) == 4
    )
    places = [(s + 1, i) for s, count in enumerate(_CONVS) for i in range(count)]
    layers = {}
    for conv, (stage, i) in zip(convs, places, strict=False):
        layers[conv] = f"stage{stage}.{i}.conv"
        layers[conv + 1] = f"stage{stage}.{i}.norm"
    renamed = dict(tensors)
    for name, m in found.items():
        if int(m[1]) in layers:
            renamed[f"{layers[int(m[1])]}.{m[2]}"] = renamed.pop(name)
    for conv in convs:
        prefix = layers.get(conv, "").removesuffix(".conv")
        mean, bias = f"{prefix}.norm.running_mean", f"{prefix}.conv.bias"
        if mean in renamed and bias in renamed:
            renamed[mean] = renamed[mean] - renamed.pop(bias)
    return {k: x for k, x in renamed.items() if not _is_counter(k)}


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
