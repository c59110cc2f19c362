"""Conversion of torchvision's networks to segjax's variables."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segjax.interop import conversion, vgg
from segjax.typing import PyTree

_COUNTER = "num_batches_tracked"  # Not used in inference.
_CLASSIFIER = ("fc.", "aux_classifier.")  # ImageNet's; a loss of intermediate maps.
_VGG_CLASSIFIER = ("classifier.",)

# Paths of segjax's modules, and torchvision's. The path of a norm ends in `norm`.
_MODULES = (
    (r"^((?:body|encoder)/)?conv1/conv$", r"{body}conv1"),
    (r"^((?:body|encoder)/)?conv1/norm$", r"{body}bn1"),
    (
        r"^((?:body|encoder)/)?layer(\d)_(\d+)/conv(\d)/conv$",
        r"{body}layer\2.\3.conv\4",
    ),
    (r"^((?:body|encoder)/)?layer(\d)_(\d+)/conv(\d)/norm$", r"{body}layer\2.\3.bn\4"),
    (
        r"^((?:body|encoder)/)?layer(\d)_(\d+)/downsample/conv$",
        r"{body}layer\2.\3.downsample.0",
    ),
    (
        r"^((?:body|encoder)/)?layer(\d)_(\d+)/downsample/norm$",
        r"{body}layer\2.\3.downsample.1",
    ),
    (r"^fc6$", r"classifier.0"),  # Of VGG-16, for `models.FCN`.
    (r"^fc7$", r"classifier.3"),
    (r"^aspp/branch(\d)/conv$", r"classifier.0.convs.\1.0"),
    (r"^aspp/branch(\d)/norm$", r"classifier.0.convs.\1.1"),
    (r"^aspp/pool/conv$", r"classifier.0.convs.4.1"),
    (r"^aspp/pool/norm$", r"classifier.0.convs.4.2"),
    (r"^aspp/project/conv$", r"classifier.0.project.0"),
    (r"^aspp/project/norm$", r"classifier.0.project.1"),
    (r"^conv/conv$", r"classifier.{conv}"),
    (r"^conv/norm$", r"classifier.{conv_norm}"),
    (r"^head$", r"classifier.4"),
    (r"^fpn/(inner|layer)(\d)/conv$", r"backbone.fpn.\1_blocks.\2.0"),
    (r"^fpn/(inner|layer)(\d)/norm$", r"backbone.fpn.\1_blocks.\2.1"),
    (r"^rpn/conv(\d)$", r"rpn.head.conv.\1.0"),
    (r"^rpn/score$", r"rpn.head.cls_logits"),
    (r"^rpn/delta$", r"rpn.head.bbox_pred"),
    (r"^roi_heads/box/conv(\d)/conv$", r"roi_heads.box_head.\1.0"),
    (r"^roi_heads/box/conv(\d)/norm$", r"roi_heads.box_head.\1.1"),
    (r"^roi_heads/box/dense0$", r"roi_heads.box_head.{dense0}"),
    (r"^roi_heads/box/dense1$", r"roi_heads.box_head.fc7"),
    (r"^roi_heads/box/score$", r"roi_heads.box_predictor.cls_score"),
    (r"^roi_heads/box/delta$", r"roi_heads.box_predictor.bbox_pred"),
    (r"^roi_heads/mask/conv(\d)/conv$", r"roi_heads.mask_head.\1.0"),
    (r"^roi_heads/mask/conv(\d)/norm$", r"roi_heads.mask_head.\1.1"),
    (r"^roi_heads/mask/deconv$", r"roi_heads.mask_predictor.conv5_mask"),
    (r"^roi_heads/mask/logits$", r"roi_heads.mask_predictor.mask_fcn_logits"),
)

# Names before torchvision 0.13, and current names.
_OLD_NAMES = (
    (r"^(backbone\.fpn\.\w+_blocks\.\d)\.(weight|bias)$", r"\1.0.\2"),
    (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
)
_OLD_MASK_HEAD = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")


def from_torchvision(
    state_dict: Mapping[str, np.ndarray], shapes: PyTree, *, epsilon: float
) -> dict[str, Any]:
    """Converts a state dict of torchvision to the variables of a segjax model.

    Args:
        state_dict: Arrays by name, from `read_tensors`. `ignored_keys` are skipped.
        shapes: Result of `jax.eval_shape(model.init, key, image)`. If the model has
            frozen norms, the four tensors of each batch norm are folded into two;
            models with batch norms keep all four.
        epsilon: Epsilon of the batch norms that are folded: 1e-5, except for
            torchvision's COCO_V1 weights of `maskrcnn_resnet50_fpn`, which have 0.

    Returns:
        Collections (`params`, `frozen`, `batch_stats`) of float32 NumPy arrays with
        the names and shapes of `shapes`.

    Raises:
        ValueError: If a key is missing or unexpected, or a tensor has another shape;
            the message names it.
    """
    tensors = {_current_name(name): x for name, x in state_dict.items()}
    ignored = ignored_keys(tensors)
    normed = "features.1.running_mean" in tensors
    if normed:
        tensors = vgg.fold_biases(tensors)
    parts = _parts(tensors)
    names = [
        *vgg.vgg_names(normed=normed),
        *((ours, theirs.format(**parts)) for ours, theirs in _MODULES),
    ]
    return conversion.convert(tensors, shapes, names, epsilon=epsilon, ignored=ignored)


def ignored_keys(state_dict: Iterable[str]) -> list[str]:
    """Lists the keys that need not be imported: counters, classifiers of ImageNet.

    Args:
        state_dict: Keys of a state dict.
    """
    names = list(state_dict)
    is_vgg = any(x.startswith("features.") for x in names)
    classifier = _VGG_CLASSIFIER if is_vgg else _CLASSIFIER
    return [x for x in names if x.endswith(_COUNTER) or x.startswith(classifier)]


def _parts(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """What depends on the network in torchvision's names."""
    detector = any(name.startswith("backbone.body.") for name in tensors)
    segmenter = any(name.startswith("backbone.conv1.") for name in tensors)
    body = "backbone.body." if detector else "backbone." if segmenter else ""
    # In version 2, it follows four convolutions and a flattening.
    version2 = "roi_heads.box_head.5.weight" in tensors
    first = 1 if "classifier.0.project.0.weight" in tensors else 0  # After an ASPP.
    return {
        "body": body,
        "dense0": "5" if version2 else "fc6",
        "conv": str(first),
        "conv_norm": str(first + 1),
    }


def _current_name(name: str) -> str:
    """Converts a tensor's old name to torchvision's current one."""
    match = _OLD_MASK_HEAD.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for old, new in _OLD_NAMES:
        name = re.sub(old, new, name)
    return name
