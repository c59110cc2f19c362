"""Parameters of torchvision's ResNets and Mask R-CNNs as ours, tensor for tensor."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from segjax.typing import PyTree

_IGNORED = "num_batches_tracked"  # A counter that no network reads.
_CLASSIFIER = ("fc.weight", "fc.bias")  # Of ImageNet, after a ResNet's features.

# Our modules, written as paths, and theirs. A norm's path ends in `norm`.
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

# Names that files from before torchvision 0.13 have, and today's.
_OLD_NAMES = (
    (r"^(backbone\.fpn\.\w+_blocks\.\d)\.(weight|bias)$", r"\1.0.\2"),
    (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
)
_OLD_MASK_HEAD = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")


def from_torchvision(
    state: Mapping[str, np.ndarray], shapes: PyTree, *, epsilon: float
) -> dict[str, Any]:
    """Variables of one of our networks from a state dict of torchvision's.

    Args:
        state: Names to arrays, as `read_tensors` gives them. What `ignored_keys` names is
            left out.
        shapes: What `jax.eval_shape(model.init, key, image)` gives. Where the model
            has frozen norms, a batch norm's four tensors become their two; its batch
            norms keep all four.
        epsilon: Of the batch norms that become frozen ones: 1e-5, but 0 in
            torchvision's own COCO_V1 weights of `maskrcnn_resnet50_fpn`.

    Returns:
        Collections (`params`, `frozen`, `batch_stats`) of float32 NumPy arrays with
        the names and shapes of `shapes`.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape; the message
            names it.
    """
    left_out = ignored_keys(state)
    tensors = {_today(name): x for name, x in state.items() if name not in left_out}
    source = _Source(tensors)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    variables = [
        _leaf([k.key for k in path], leaf.shape, source, epsilon)
        for path, leaf in leaves
    ]
    left = sorted(source.left())
    if left:
        raise ValueError(
            f"the checkpoint has {left[0]} {list(tensors[left[0]].shape)}, which the "
            f"model has not{_more(left)}. Name the model that it was saved from."
        )
    return jax.tree.unflatten(structure, variables)


def ignored_keys(state: Iterable[str]) -> list[str]:
    """Names of tensors that are expected and not used.

    Args:
        state: Names of a state dict: its counters `num_batches_tracked`, and the
            classifier of a ResNet.
    """
    return [x for x in state if x.endswith(_IGNORED) or x in _CLASSIFIER]


class _Source:
    """Tensors by name, and which have been read."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._read: set[str] = set()
        self.parts = {
            "body": "backbone.body." if _is_detector(tensors) else "",
            # Four convolutions and a flattening come before it in version 2.
            "dense0": "5" if "roi_heads.box_head.5.weight" in tensors else "fc6",
        }

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor of a name, float32."""
        if name not in self._tensors:
            raise ValueError(
                f"the checkpoint lacks {name} {list(shape)}. Name the model that it "
                f"was saved from, or save all of its state dict."
            )
        x = self._tensors[name]
        if x.shape != shape:
            raise ValueError(
                f"{name} needs the shape {list(shape)}, the checkpoint has "
                f"{list(x.shape)}. Give the model of the checkpoint, with its number "
                f"of classes."
            )
        self._read.add(name)
        return np.asarray(x, np.float32)

    def left(self) -> set[str]:
        """Names that nothing has read."""
        return self._tensors.keys() - self._read


def _is_detector(tensors: Mapping[str, np.ndarray]) -> bool:
    return any(name.startswith("backbone.") for name in tensors)


def _leaf(
    path: list[str], shape: tuple[int, ...], source: _Source, epsilon: float
) -> np.ndarray:
    """The value of one of our arrays: collection, modules, and its own name."""
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
    """Their name of one of our modules."""
    for ours, theirs in _MODULES:
        match = re.match(ours, modules)
        if match:
            return match.expand(theirs.format(**parts))
    raise ValueError(
        f"torchvision's networks have no counterpart of {modules}. Give a model with "
        f"frozen or batch norms, as models.mask_rcnn_resnet50_fpn and "
        f"models.resnet50 are."
    )


def _frozen(
    leaf: str, theirs: str, shape: tuple[int, ...], source: _Source, epsilon: float
) -> np.ndarray:
    """(x - mean) / sqrt(var + epsilon) * weight + bias, as a scale and a bias."""
    weight, bias, mean, var = (
        source.read(f"{theirs}.{name}", shape)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(var + np.float32(epsilon))
    return scale if leaf == "scale" else bias - mean * scale


Convert = Callable[[np.ndarray], np.ndarray]


def _kernel(modules: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Convert]:
    """Their shape of a kernel of ours, and how to make ours of it."""
    if modules.endswith("mask/deconv"):  # Theirs is (I, O, H, W), and not mirrored.
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
    if "/dense" in modules:  # A layer over flattened features, channels first.
        flat = (outputs, inputs * height * width)
        return flat, lambda x: x.reshape(whole).transpose(2, 3, 1, 0).copy()
    return whole, lambda x: x.transpose(2, 3, 1, 0).copy()


def _today(name: str) -> str:
    """A tensor's name as torchvision has it now."""
    match = _OLD_MASK_HEAD.match(name)
    if match:
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for old, new in _OLD_NAMES:
        name = re.sub(old, new, name)
    return name


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
