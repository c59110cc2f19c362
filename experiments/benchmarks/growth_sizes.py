"""Where all but one of the quantities of growth.py stand, and a point of an axis."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Point:
    """Something of one size, ready to run.

    Attributes:
        run: Does it once, and waits.
        bytes: Of arguments, results and all between, less what shares memory: XLA's
            own account of the program, or what NumPy held at most.
    """

    run: Callable[[], Any]
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small:
    """Where the other quantities stand while one grows.

    Attributes:
        size: Side of an image in pixels.
        batch: Images.
        width: Channels of the U-Net's finest scale, of three.
        classes: C.
        objects: Of each image, for Mask R-CNN, whose images are twice as wide.
        regions: Proposals of each image, of which as many are learned.
        dtype: Of the networks.
    """

    size: int = 64
    batch: int = 2
    width: int = 8
    classes: int = 4
    objects: int = 16
    regions: int = 16
    dtype: str = "float32"


CPU = Small()
GPU = Small(
    size=256, batch=8, width=32, classes=8, objects=32, regions=64, dtype="bfloat16"
)
