"""Where training crops are placed: anywhere, or on chosen classes or objects."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from segjax.data.objects import draw_object
from segjax.errors import UserError

_WORDS = 5


@runtime_checkable
class CropPlacement(Protocol):
    """Chooses pixels that a share of the training crops hold.

    Its `repr` is part of the data's fingerprint, so it should be a frozen dataclass.
    """

    @property
    def share(self) -> float:
        """Share of the crops, in [0, 1]; the others are placed anywhere."""
        ...

    def pixel(self, example: Mapping[str, Any], first: int, second: int) -> int | None:
        """Draws a pixel that the crop is to hold.

        Args:
            example: As the data set has it.
            first: A random number in [0, 2**32), and the only source of randomness,
            second: with this one.

        Returns:
            The number of the pixel, row by row; None for a crop anywhere.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ClassCrops:
    """Places a share of the training crops so that they hold chosen classes.

    Rare classes are then seen more often, with no change to the images. Class
    frequencies in training differ from those in evaluation.

    Attributes:
        classes: Class ids. One of those in the image is drawn, each as likely as the
            others, and one of its pixels, anywhere in the crop.
        share: Of the crops, in [0, 1]; crops of images without these classes are
            placed anywhere.
    """

    classes: tuple[int, ...]
    share: float = 0.5

    def __post_init__(self):
        _check_share(self.share)
        if not self.classes or min(self.classes) < 0:
            raise UserError(
                f"classes must be class ids, at least one, got {list(self.classes)}."
            )

    def pixel(self, example: Mapping[str, Any], first: int, second: int) -> int | None:
        """Draws a class, then one of its pixels."""
        label = np.asarray(example["label"])
        found = [np.flatnonzero(label == c) for c in self.classes]
        return _drawn([pixels for pixels in found if pixels.size], first, second)


@dataclasses.dataclass(frozen=True)
class ObjectCrops:
    """Places a share of the training crops so that they hold an object.

    Every object of an image is as likely as the others, so that small ones are seen as
    often as large ones, and empty regions less often. Needs examples with objects.

    Attributes:
        share: Of the crops, in [0, 1]; crops of images without objects are placed
            anywhere. Crowds are no objects.
    """

    share: float = 0.5

    def __post_init__(self):
        _check_share(self.share)

    def pixel(self, example: Mapping[str, Any], first: int, second: int) -> int | None:
        """Draws an object, then one of its pixels."""
        pixels = np.flatnonzero(draw_object(example, first))
        return _drawn([pixels] if pixels.size else [], 0, second)


def corner(
    seed: int,
    position: int,
    example: Mapping[str, Any],
    size: tuple[int, int],
    placement: CropPlacement | None,
) -> tuple[int, int]:
    """Returns the (top, left) of a crop, a pure function of its arguments.

    Args:
        seed: Of the crops.
        position: Of the crop in the stream.
        example: With `label` [H, W], and what the placement reads.
        size: (height, width) of the crop; larger than the image is allowed.
        placement: Chooses what crops hold; None for crops anywhere.
    """
    shape = np.shape(example["label"])
    rest = [max(0, have - want) for have, want in zip(shape, size, strict=True)]
    if not any(rest):
        return 0, 0
    # Raw words of SeedSequence: NumPy guarantees that these never change. The first two
    # are the same for any number of words.
    words = np.random.SeedSequence((seed, position)).generate_state(_WORDS).tolist()
    if placement is not None and words[2] < placement.share * 2**32:
        pixel = placement.pixel(example, words[3], words[4])
        if pixel is not None:
            # The pixel is anywhere in the crop, and the crop within the image.
            top, left = (
                min(max(0, at - word % want), most)
                for at, word, want, most in zip(
                    divmod(pixel, shape[1]), words[:2], size, rest, strict=True
                )
            )
            return top, left
    return words[0] % (rest[0] + 1), words[1] % (rest[1] + 1)


def _drawn(groups: list[np.ndarray], first: int, second: int) -> int | None:
    """Draws one of the groups of pixels, and a pixel of it; None without groups."""
    if not groups:
        return None
    pixels = groups[first % len(groups)]
    return int(pixels[second % len(pixels)])


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UserError(f"share must be in [0, 1], got {share}.")
