"""`segjax import CHECKPOINT --model NAME --out DIR`."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from segjax import interop, models
from segjax.cli import flags
from segjax.errors import UserError

_DETECTORS: dict[str, Callable[[int], models.MaskRCNN]] = {
    "maskrcnn_resnet50_fpn": models.mask_rcnn_resnet50_fpn,
    "maskrcnn_resnet50_fpn_v2": models.mask_rcnn_resnet50_fpn_v2,
}
_BODIES: dict[str, Callable[[], models.ResNet]] = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
}
_CLASSES = "roi_heads.box_predictor.cls_score.bias"
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Flags of `segjax import`.

    Attributes:
        checkpoint: A state dict of torchvision: .safetensors, or .pth, which needs
            PyTorch.
        model: The network of the checkpoint.
        out: The folder to create, for interop.load.
        epsilon: The epsilon of frozen batch norms. By default 1e-5, but 0 for
            torchvision's own maskrcnn_resnet50_fpn on COCO, which was trained with it.
    """

    checkpoint: Annotated[pathlib.Path, tyro.conf.Positional]
    model: Literal[
        "maskrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
    ]
    out: pathlib.Path
    epsilon: float | None = None


def main(args: Sequence[str]) -> None:
    """Converts a checkpoint of torchvision into a folder of variables."""
    options: ImportOptions = flags.read(ImportOptions, args, prog="segjax import")
    state = interop.read_tensors(options.checkpoint)
    epsilon = options.epsilon
    if epsilon is None:
        epsilon = 0.0 if _is_coco_v1(options.model, state) else 1e-5
    model = _model(options.model, state)
    variables = interop.from_torchvision(state, _shapes(model), epsilon=epsilon)
    interop.save(options.out, variables)
    ignored = interop.ignored_keys(state)
    numbers = sum(x.size for x in jax.tree.leaves(variables["params"]))
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
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
    if name in _BODIES:
        return _BODIES[name]()
    if _CLASSES not in state:
        raise UserError(
            f"the checkpoint lacks {_CLASSES}, so it is none of {name}. Name the model "
            f"that it was saved from."
        )
    return _DETECTORS[name](len(state[_CLASSES]))


def _shapes(model: Any) -> Any:
    """Returns the shapes of the model's variables without computing them."""
    image = jnp.zeros((1, 64, 64, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))


def _is_coco_v1(name: str, state: Mapping[str, np.ndarray]) -> bool:
    """Whether a checkpoint has frozen batch norms and the classes of COCO."""
    frozen = not any(key.endswith(_COUNTER) for key in state)
    classes = state.get(_CLASSES, np.empty(0))
    return name == "maskrcnn_resnet50_fpn" and frozen and len(classes) == 91
