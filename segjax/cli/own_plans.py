"""The settings of `segjax train --data`, and the lines that explain them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich.text import Text

from segjax import planning, terminal
from segjax.experiments import mask_rcnn, unet

Line = tuple[str, str, str]
"""What is set, to what and why, and the flags that change it."""

_WIDTHS = {"cpu": 16}
"""Channels of the finest scale by backend; 32 on others."""


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
    made = {
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
        (
            "Model",
            f"U-Net, {made['depth']} scales from {made['width']} channels; "
            f"cross-entropy{_weights(made['class_weights'])} + soft Dice",
            "--depth, --width, --class-weights",
        ),
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


def _weights(weights: tuple[float, ...] | None) -> str:
    if weights is None:
        return ""
    return f" with weights {min(weights):g} to {max(weights):g}"


def _divisible(batch_size: int) -> int:
    """Rounds up to a multiple of the devices."""
    devices = jax.device_count()
    return math.ceil(batch_size / devices) * devices
