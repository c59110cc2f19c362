"""Settings of an experiment, suggested from the statistics of its data."""

import dataclasses
import math

from segjax.errors import UserError
from segjax.planning.statistics import Statistics

_LEAST_EXTENT = 8.0
"""Pixels that the regions of the narrowest class keep when images are shrunk."""
_MOST_FACTOR = 6
"""Largest factor of shrinking: crops are augmented before they are shrunk, which takes
time and memory by their pixels."""
_MOST_PIXELS = 3_000_000
"""Pixels of the crops of an update, for the same reason."""
_LEAST_SIDE = 192
"""Pixels that the shorter side of a shrunk image keeps."""
_CROP = 192
"""Largest side of a training crop, in pixels of the network."""
_STRIDE = 32
"""Sides of crops are multiples of this, in pixels of the network."""
_COARSEST = 8
"""Pixels of a crop's side at the coarsest scale of a U-Net."""
_RARE = 0.05
"""Classes are weighted if one has a smaller share of the pixels."""
_WEIGHTS = (0.5, 4.0)
"""Bounds of class weights, in units of their mean over pixels."""
_LEAST_PRETRAINED = 96
"""Pixels of a crop's side for an encoder whose coarsest map has a stride of 32."""
_SMALL_OBJECT = 20
"""Pixels; images with smaller objects are enlarged for a detector."""
_STEPS = (200, 20_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a U-Net.

    Attributes:
        factor: The network sees the images shrunk this many times; 1 for not at all.
        resize: Longest side of the median image after that, in pixels.
        size: Side of the training crops, in pixels of the images as they are.
        depth: Number of scales of the network.
        class_weights: Factors of the cross-entropy by class; None for ones.
        batch_size: Images per update.
        pretrained: Whether the images are photographs, for which an encoder that was
            trained on ImageNet is better.
    """

    factor: int
    resize: int
    size: int
    depth: int
    class_weights: tuple[float, ...] | None
    batch_size: int
    pretrained: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorPlan:
    """Settings of a Mask R-CNN.

    Attributes:
        anchors: Side of the anchors at each of five scales, in pixels of the enlarged
            image.
        upscale: The network sees the images enlarged this many times.
        size: Side of the training crops, in pixels.
        max_objects: Slots for the objects of a crop.
        batch_size: Images per update.
    """

    anchors: tuple[int, int, int, int, int]
    upscale: int
    size: int
    max_objects: int
    batch_size: int = 2


def suggest(found: Statistics, *, resize: int | None = None) -> Plan:
    """Suggests the settings of a U-Net; a pure function.

    The scale is the coarsest one at which the regions of the narrowest class are still
    8 pixels wide, and the shorter side of the median image has 192 pixels, up to a
    factor of 8: a network then sees most of each object, in less time. The crop is at
    most 192 pixels of the shrunk image, and the network halves it until about 8 pixels
    remain. If a class has less than 5 % of the pixels, classes are weighted by the
    inverse square root of their share, within a factor of 8. Colored images, in crops
    of 96 pixels or more, call for a pretrained encoder.

    Args:
        found: Statistics of the training split.
        resize: The longest side of the median image for the network, in pixels, if it
            is given.
    """
    factor = _factor(found) if resize is None else shrink_factor(found.size, resize)
    short = min(found.size) // factor
    crop = max(_STRIDE, min(_CROP, short // _STRIDE * _STRIDE))
    return Plan(
        factor=factor,
        resize=round(max(found.size) / factor),
        size=crop * factor,
        depth=min(5, max(3, math.ceil(math.log2(crop / _COARSEST)))),
        class_weights=_class_weights(found.pixel_shares),
        batch_size=_batch_size(crop, factor),
        pretrained=found.colored and crop >= _LEAST_PRETRAINED,
    )


def suggest_detector(found: Statistics) -> DetectorPlan:
    """Suggests the settings of a Mask R-CNN; a pure function.

    Images are enlarged twice if the median object is below 20 pixels. Of the five sizes
    of anchors, each twice the one before, the second is the power of two nearest to the
    median object. A crop holds about eight objects in each direction.

    Args:
        found: Statistics of the training split, with objects.

    Raises:
        ValueError: If there is no object.
    """
    if found.object_side is None:
        raise UserError(
            "No training image has an object: needed at least one to find. Check that "
            "the objects belong to these images."
        )
    upscale = 2 if found.object_side < _SMALL_OBJECT else 1
    middle = round(math.log2(max(found.object_side * upscale, 1)))
    first = 2 ** min(max(middle - 1, 2), 5)
    side = min(max(8 * found.object_side, 128), 512, max(found.size))
    return DetectorPlan(
        anchors=(first, 2 * first, 4 * first, 8 * first, 16 * first),
        upscale=upscale,
        size=max(_STRIDE, round(side / _STRIDE) * _STRIDE),
        max_objects=min(max(found.most_objects, 1), 100),
    )


def shrink_factor(size: tuple[int, int], resize: int | None) -> int:
    """Returns the whole factor that brings an image nearest to a longest side.

    Args:
        size: (height, width) of the image, in pixels.
        resize: Longest side of the shrunk image, in pixels; None for no shrinking.

    Returns:
        At least 1: images are not enlarged.

    Raises:
        ValueError: If `resize` is below 1.
    """
    if resize is None:
        return 1
    if resize < 1:
        raise UserError(f"resize must be at least 1 pixel, got {resize}.")
    # Above the longest side, the network would see a single pixel.
    return min(max(1, round(max(size) / resize)), max(size))


def steps_within(seconds: float, *, update: float, evaluation: float = 0.0) -> int:
    """Returns how many updates fit into a time, from 200 to 20,000.

    Args:
        seconds: The time. A quarter of it is left for compilation and evaluations.
        update: Seconds of one update.
        evaluation: Seconds of one of five evaluations.
    """
    left = 0.75 * seconds - 5 * evaluation
    steps = int(min(max(left / update, _STEPS[0]), _STEPS[1]))
    return steps // 50 * 50  # A round number.


def _factor(found: Statistics) -> int:
    extents = [x for x in found.extents if x is not None]
    by_extent = min(extents, default=math.inf) / _LEAST_EXTENT
    by_side = min(found.size) / _LEAST_SIDE
    return max(1, int(min(by_extent, by_side, _MOST_FACTOR)))


def _batch_size(crop: int, factor: int) -> int:
    most = _MOST_PIXELS // (crop * factor) ** 2
    return max(2, min(most, 4 if crop > 128 else 8))


def _class_weights(fractions: tuple[float, ...]) -> tuple[float, ...] | None:
    """Inverse square roots of the fractions, bounded, with a mean over pixels of 1."""
    occurring = [share for share in fractions if share > 0]
    if min(occurring) >= _RARE or len(occurring) < 2:
        return None
    raw = [share**-0.5 if share > 0 else 0.0 for share in fractions]
    mean = sum(w * share for w, share in zip(raw, fractions, strict=True))
    low, high = _WEIGHTS
    bounded = [min(max(w / mean, low), high) if w else 1.0 for w in raw]
    return tuple(round(w, 2) for w in bounded)
