"""Where training crops are placed: anywhere, or on pixels of chosen classes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from segjax.errors import UserError

_WORDS = 5


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
        if not 0 <= self.share <= 1:
            raise UserError(f"share must be in [0, 1], got {self.share}.")
        if not self.classes or min(self.classes) < 0:
            raise UserError(
                f"classes must be class ids, at least one, got {list(self.classes)}."
            )


def corner(
    seed: int,
    position: int,
    label: np.ndarray,
    size: tuple[int, int],
    class_crops: ClassCrops | None,
) -> tuple[int, int]:
    """Returns the (top, left) of a crop, a pure function of its arguments.

    Args:
        seed: Of the crops.
        position: Of the crop in the stream.
        label: [H, W], class ids of the image.
        size: (height, width) of the crop; larger than the image is allowed.
        class_crops: Chooses the classes that crops hold; None for none.
    """
    rest = [max(0, h - want) for h, want in zip(label.shape, size, strict=True)]
    if not any(rest):
        return 0, 0
    # Raw words of SeedSequence: NumPy guarantees that these never change. The first two
    # are the same for any number of words.
    words = np.random.SeedSequence((seed, position)).generate_state(_WORDS)
    if class_crops is not None and words[2] < class_crops.share * 2**32:
        pixel = _pixel(label, class_crops.classes, int(words[3]), int(words[4]))
        if pixel is not None:
            return _around(pixel, words, size, rest)
    return int(words[0]) % (rest[0] + 1), int(words[1]) % (rest[1] + 1)


def _pixel(
    label: np.ndarray, classes: Sequence[int], which_class: int, which_pixel: int
) -> tuple[int, int] | None:
    """Draws a pixel of one of the classes in the image; None without such a pixel."""
    there = [found for c in classes if (found := np.flatnonzero(label == c)).size]
    if not there:
        return None
    pixels = there[which_class % len(there)]
    y, x = divmod(int(pixels[which_pixel % len(pixels)]), label.shape[1])
    return y, x


def _around(
    pixel: tuple[int, int], words: np.ndarray, size: Sequence[int], rest: Sequence[int]
) -> tuple[int, int]:
    """Places the crop so that the pixel is anywhere in it, within the image."""
    top, left = (
        min(max(0, at - int(word) % want), most)
        for at, word, want, most in zip(pixel, words[:2], size, rest, strict=True)
    )
    return top, left
