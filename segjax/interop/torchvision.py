"""Conversion of torchvision's ResNets and Mask R-CNNs to segjax's variables."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from segjax.errors import UserError
from segjax.typing import PyTree

_COUNTER = "num_batches_tracked"  # Not used in inference.
_CLASSIFIER = ("fc.weight", "fc.bias")  # A ResNet's ImageNet classifier.

# Paths of segjax's modules, and torchvision's. The path of a norm ends in `norm`.
_MODULES = (
    (r"^(body/)?conv1/conv$", r"{body}conv1"),
    (r"^(body/)?conv1/norm$", r"{body}bn1"),
    (r"^(body/)?layer(\d)_(\d+)/conv(\d)/conv$", r"{body}layer\2.\3.conv\4"),
    (r"^(body/)?layer(\d)_(\d+)/conv(\d)/norm$", r"{body}layer\2.\3.bn\4"),
    (r"^(body/)?layer(\d)_(\d+)/downsample/conv$", r"{body}layer\2.\3.downsample.0"),
    (r"^(body/)?layer(\d)_(\d+)/downsample/norm$", r"{body}layer\2.\3.downsample.1"),
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
    ignored = ignored_keys(state_dict)
    tensors = {
        _current_name(name): x for name, x in state_dict.items() if name not in ignored
    }
    source = _Source(tensors)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    variables = [
        _leaf([k.key for k in path], leaf.shape, source, epsilon)
        for path, leaf in leaves
    ]
    unexpected = sorted(source.unread())
    if unexpected:
        first = unexpected[0]
        raise UserError(
            f"the checkpoint has {first} {list(tensors[first].shape)}, which the model "
            f"does not have{_more(unexpected)}. Name the model that it was saved from."
        )
    return jax.tree.unflatten(structure, variables)


def ignored_keys(state_dict: Iterable[str]) -> list[str]:
    """Lists the keys that are not imported: counters, and a ResNet's classifier.

    Args:
        state_dict: Keys of a state dict.
    """
    return [x for x in state_dict if x.endswith(_COUNTER) or x in _CLASSIFIER]


class _Source:
    """Tensors by name; records which ones were read."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._read: set[str] = set()
        self.parts = {
            "body": "backbone.body." if _is_detector(tensors) else "",
            # In version 2, it follows four convolutions and a flattening.
            "dense0": "5" if "roi_heads.box_head.5.weight" in tensors else "fc6",
        }

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns a tensor as float32."""
        if name not in self._tensors:
            raise UserError(
                f"the checkpoint lacks {name} {list(shape)}. Name the model that it "
                f"was saved from, or save its complete state dict."
            )
        x = self._tensors[name]
        if x.shape != shape:
            raise UserError(
                f"{name} needs the shape {list(shape)}, the checkpoint has "
                f"{list(x.shape)}. Name the model of the checkpoint, with its number "
                f"of classes."
            )
        self._read.add(name)
        return np.asarray(x, np.float32)

    def unread(self) -> set[str]:
        """Returns the names that were not read."""
        return self._tensors.keys() - self._read


def _is_detector(tensors: Mapping[str, np.ndarray]) -> bool:
    return any(name.startswith("backbone.") for name in tensors)


def _leaf(
    path: list[str], shape: tuple[int, ...], source: _Source, epsilon: float
) -> np.ndarray:
    """Returns the value of the variable at a path: collection, modules, name."""
    collection, *modules, leaf = path
    modules = "/".join(
        "norm" if re.match(r"(FrozenNorm|BatchNorm)_0$", m) else m for m in modules
    )
    theirs = _module(modules, source.parts)
    if collection == "frozen":
        return _frozen(leaf, theirs, shape, source, epsilon)
    if leaf == "kernel":
        their_shape, convert = _kernel(modules, shape)
        return convert(source.read(f"{theirs}.weight", their_shape))
    name = {"mean": "running_mean", "var": "running_var", "scale": "weight"}
    return source.read(f"{theirs}.{name.get(leaf, leaf)}", shape)


def _module(modules: str, parts: Mapping[str, str]) -> str:
    """Translates the path of a segjax module to torchvision's name."""
    for ours, theirs in _MODULES:
        match = re.match(ours, modules)
        if match:
            return match.expand(theirs.format(**parts))
    raise UserError(
        f"torchvision's networks have no counterpart of {modules}. Use a model with "
        f"frozen or batch norms, such as models.mask_rcnn_resnet50_fpn or "
        f"models.resnet50."
    )


def _frozen(
    leaf: str, theirs: str, shape: tuple[int, ...], source: _Source, epsilon: float
) -> np.ndarray:
    """Folds (x - mean) / sqrt(var + epsilon) * weight + bias into scale and bias."""
    weight, bias, mean, var = (
        source.read(f"{theirs}.{name}", shape)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(var + np.float32(epsilon))
    return scale if leaf == "scale" else bias - mean * scale


Convert = Callable[[np.ndarray], np.ndarray]


def _kernel(modules: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Convert]:
    """Returns torchvision's shape of a kernel, and its conversion to ours."""
    if modules.endswith("mask/deconv"):  # Theirs is (I, O, H, W), and not flipped.
        height, width, inputs, outputs = shape
        theirs = (inputs, outputs, height, width)
        return theirs, lambda x: x.transpose(2, 3, 0, 1)[::-1, ::-1].copy()
    if modules.endswith("mask/logits"):  # A 1x1 convolution.
        inputs, outputs = shape
        return (outputs, inputs, 1, 1), lambda x: x[:, :, 0, 0].T.copy()
    if len(shape) == 2:
        return shape[::-1], lambda x: x.T.copy()
    height, width, inputs, outputs = shape
    whole = (outputs, inputs, height, width)
    if "/dense" in modules:  # A dense layer over flattened features, channels first.
        flat = (outputs, inputs * height * width)
        return flat, lambda x: x.reshape(whole).transpose(2, 3, 1, 0).copy()
    return whole, lambda x: x.transpose(2, 3, 1, 0).copy()


def _current_name(name: str) -> str:
    """Converts a tensor's old name to torchvision's current one."""
    match = _OLD_MASK_HEAD.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for old, new in _OLD_NAMES:
        name = re.sub(old, new, name)
    return name


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
