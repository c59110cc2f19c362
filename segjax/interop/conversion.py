"""Conversion of PyTorch's tensors to segjax's variables, every tensor accounted for."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax.errors import UserError
from segjax.typing import PyTree

Names = Sequence[tuple[str, str]]
"""Regular expressions of the paths of segjax's modules, and their origin's names. The
path of a batch norm ends in `norm`, or in `norm1`, ... if it is not its module's first.
"""


def convert(
    tensors: Mapping[str, np.ndarray],
    shapes: PyTree,
    names: Names,
    *,
    epsilon: float,
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """Converts tensors to variables.

    Args:
        tensors: Arrays by name.
        shapes: Result of `jax.eval_shape(model.init, key, image)`. If the model has
            frozen norms, the four tensors of each batch norm are folded into two.
        names: The first match names a module's tensors.
        epsilon: Epsilon of the batch norms that are folded.
        ignored: Tensors that need not be in the model.

    Returns:
        Collections of float32 NumPy arrays with the names and shapes of `shapes`.

    Raises:
        ValueError: If a tensor is missing or unexpected, or has another shape; the
            message names it.
    """
    source = _Source(tensors)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    variables = [
        _leaf([k.key for k in path], leaf.shape, source, names, epsilon)
        for path, leaf in leaves
    ]
    unexpected = sorted(source.unread() - set(ignored))
    if unexpected:
        first = unexpected[0]
        raise UserError(
            f"the checkpoint has {first} {list(tensors[first].shape)}, which the model "
            f"does not have{_more(unexpected)}. Name the model that it was saved from."
        )
    return jax.tree.unflatten(structure, variables)


class _Source:
    """Tensors by name; records which ones were read."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._read: set[str] = set()

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


def _leaf(
    path: list[str],
    shape: tuple[int, ...],
    source: _Source,
    names: Names,
    epsilon: float,
) -> np.ndarray:
    """Returns the value of the variable at a path: collection, modules, name."""
    collection, *modules, leaf = path
    modules = "/".join(
        re.sub(r"^(FrozenNorm|BatchNorm)_(\d+)$", _norm_name, m) for m in modules
    )
    theirs = _module(modules, names)
    if collection == "frozen":
        return _frozen(leaf, theirs, shape, source, epsilon)
    if leaf == "kernel":
        their_shape, convert = _kernel(modules, shape)
        return convert(source.read(f"{theirs}.weight", their_shape))
    name = {"mean": "running_mean", "var": "running_var", "scale": "weight"}
    return source.read(f"{theirs}.{name.get(leaf, leaf)}", shape)


def _norm_name(match: re.Match) -> str:
    return "norm" if match[2] == "0" else f"norm{match[2]}"


def _module(modules: str, names: Names) -> str:
    """Translates the path of a segjax module to the name of its origin."""
    for ours, theirs in names:
        match = re.match(ours, modules)
        if match:
            return match.expand(theirs)
    raise UserError(
        f"the checkpoint's network has no counterpart of {modules}. Use a model with "
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
    """Returns PyTorch's shape of a kernel, and its conversion to ours."""
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
    if "/dense" in modules or modules in ("fc6", "fc7"):
        # A dense layer over flattened features, channels first.
        flat = (outputs, inputs * height * width)
        return flat, lambda x: x.reshape(whole).transpose(2, 3, 1, 0).copy()
    return whole, lambda x: x.transpose(2, 3, 1, 0).copy()


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
