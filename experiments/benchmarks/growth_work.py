"""What growth.py lets grow: steps, losses and metrics at a size that doubles."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

from growth_points import (
    detection_metric,
    loss_step,
    mask_rcnn_step,
    metric_step,
    unet_evaluation,
    unet_step,
)
from growth_sizes import Point, Small

from segjax import losses, metrics

LOSSES = (
    losses.cross_entropy,
    losses.soft_dice,
    losses.lovasz_softmax,
    losses.boundary,
    losses.soft_cldice,
)
METRICS = (metrics.semantic, metrics.surface, metrics.boundary_iou)


@dataclasses.dataclass(frozen=True)
class Axis:
    """What grows, and as which power of it time and memory may grow.

    Attributes:
        what: That is measured.
        over: That grows.
        time: Exponent that the mathematics has.
        memory: The same of memory.
        values: Doublings of `over`.
        make: A point at a value.
    """

    what: str
    over: str
    time: float
    memory: float
    values: tuple[int, ...]
    make: Callable[[int], Point]


def axes(small: Small) -> Iterator[Axis]:
    """All that is measured."""

    def grown(name: str, make: Callable[[Small], Point]) -> Callable[[int], Point]:
        return lambda value: make(dataclasses.replace(small, **{name: value}))

    def doubled(name: str, times: int, first: int = 1) -> tuple[int, ...]:
        return tuple(first * getattr(small, name) * 2**i for i in range(times))

    step, detector = "U-Net training step", "Mask R-CNN training step"
    unet = functools.partial(grown, make=unet_step)
    rcnn = functools.partial(grown, make=mask_rcnn_step)
    yield Axis(step, "image side", 2, 2, doubled("size", 4), unet("size"))
    batches, many = tuple(2**i for i in range(5)), doubled("classes", 5, first=4)
    yield Axis(step, "batch", 1, 1, batches, unet("batch"))
    yield Axis(step, "width", 2, 2, doubled("width", 4), unet("width"))
    yield Axis(step, "classes", 1, 1, many, unet("classes"))
    yield Axis(detector, "objects", 1, 1, doubled("objects", 5), rcnn("objects"))
    # NMS compares each box that it keeps with all others.
    yield Axis(detector, "regions", 2, 1, doubled("regions", 4), rcnn("regions"))
    counting = grown("classes", unet_evaluation)
    yield Axis("U-Net evaluation", "classes", 1, 1, many, counting)
    # IoU of each detection with each object of its class.
    matching = grown("objects", detection_metric)
    yield Axis("metrics.detections", "objects", 2, 1, doubled("objects", 4), matching)
    sides = doubled("size", 4)
    for loss in LOSSES:
        one = grown("size", functools.partial(loss_step, loss=loss))
        yield Axis(f"losses.{loss.__name__}", "image side", 2, 2, sides, one)
    for metric in METRICS:
        one = grown("size", functools.partial(metric_step, metric=metric))
        yield Axis(f"metrics.{metric.__name__}", "image side", 2, 2, sides, one)
