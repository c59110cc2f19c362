"""`segjax import CHECKPOINT --model NAME --out DIR`."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from segjax import interop, models, terminal
from segjax.cli import flags
from segjax.errors import UserError
from segjax.models import encoders

_WITH_CLASSES: dict[str, Callable[[int], Any]] = {
    "maskrcnn_resnet50_fpn": models.mask_rcnn_resnet50_fpn,
    "maskrcnn_resnet50_fpn_v2": models.mask_rcnn_resnet50_fpn_v2,
    "fcn_resnet50": models.DilatedFCN,
    "deeplabv3_resnet50": models.DeepLabV3,
}
_ENCODERS: dict[str, Callable[[], encoders.Encoder]] = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
    "vgg16": encoders.vgg16,
    "vgg16_bn": encoders.vgg16_bn,
    "efficientnet_lite0": encoders.efficientnet_lite0,
    "efficientnet_lite1": encoders.efficientnet_lite1,
    "efficientnet_lite2": encoders.efficientnet_lite2,
    "efficientnet_lite3": encoders.efficientnet_lite3,
    "efficientnet_lite4": encoders.efficientnet_lite4,
}
_DETECTOR_CLASSES = "roi_heads.box_predictor.cls_score.bias"
_SEGMENTER_CLASSES = "classifier.4.bias"
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Flags of `segjax import`.

    Attributes:
        checkpoint: A state dict of torchvision, or of an EfficientNet-Lite by timm or
            efficientnet_lite_pytorch: .safetensors or .pth. PyTorch is not needed.
        model: The network of the checkpoint.
        out: The folder to create, for interop.load.
        epsilon: The epsilon of frozen batch norms. By default 1e-5, but 0 for
            torchvision's own maskrcnn_resnet50_fpn on COCO, which was trained with it.
    """

    checkpoint: Annotated[pathlib.Path, tyro.conf.Positional]
    model: Literal[
        "maskrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
        "fcn_resnet50",
        "deeplabv3_resnet50",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "vgg16",
        "vgg16_bn",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "efficientnet_lite3",
        "efficientnet_lite4",
    ]
    out: pathlib.Path
    epsilon: float | None = None


def main(args: Sequence[str]) -> None:
    """Converts a checkpoint of PyTorch into a folder of variables."""
    options: ImportOptions = flags.read(ImportOptions, args, prog="segjax import")
    state = interop.read_tensors(options.checkpoint)
    epsilon = options.epsilon
    if epsilon is None:
        epsilon = 0.0 if _is_coco_v1(options.model, state) else 1e-5
    model = _model(options.model, state)
    if options.model.startswith("efficientnet_lite"):
        variables = interop.from_efficientnet_lite(state, _shapes(model))
        ignored = interop.efficientnet_lite_ignored_keys(state)
    else:
        variables = interop.from_torchvision(state, _shapes(model), epsilon=epsilon)
        ignored = interop.ignored_keys(state)
    interop.save(options.out, variables)
    numbers = sum(x.size for x in jax.tree.leaves(variables["params"]))
    console = terminal.console(soft_wrap=True)
    console.print(
        f"Read {len(state) - len(ignored)} tensors of {options.model}: {numbers:,} "
        f"parameters."
    )
    if ignored:
        # Counters, one a batch norm, by their last word.
        names = dict.fromkeys(x.split(".")[-1] if _COUNTER in x else x for x in ignored)
        console.print(f"Left out {len(ignored)} that are not used: {', '.join(names)}.")
    if "frozen" in variables:
        console.print(f"Froze batch norms, with an epsilon of {epsilon:g}.")
    console.print(
        f'Written: {options.out}. Start from it: interop.load("{options.out}")'
    )


def _model(name: str, state: Mapping[str, np.ndarray]) -> Any:
    """Builds the network, with as many classes as the checkpoint has."""
    if name in _ENCODERS:
        return _ENCODERS[name]()
    detector = name.startswith("maskrcnn")
    classes = _DETECTOR_CLASSES if detector else _SEGMENTER_CLASSES
    if classes not in state:
        raise UserError(
            f"the checkpoint lacks {classes}, so it is none of {name}. Name the model "
            f"that it was saved from."
        )
    return _WITH_CLASSES[name](len(state[classes]))


def _shapes(model: Any) -> Any:
    """Returns the shapes of the model's variables without computing them."""
    image = jnp.zeros((1, 64, 64, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))


def _is_coco_v1(name: str, state: Mapping[str, np.ndarray]) -> bool:
    """Whether a checkpoint has frozen batch norms and the classes of COCO."""
    frozen = not any(key.endswith(_COUNTER) for key in state)
    classes = state.get(_DETECTOR_CLASSES, np.empty(0))
    return name == "maskrcnn_resnet50_fpn" and frozen and len(classes) == 91
