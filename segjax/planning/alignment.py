"""Do the outlines of masks lie on edges of the image, or beside them?"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Bool, Float32, Integer, Shaped

_REACH = 6
"""Pixels by which masks are shifted on trial, in both directions."""
_LEAST_OUTLINE = 50
_SIDE = 512


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How well the outlines of a mask fit the image.

    Attributes:
        contrast: Mean gradient along the outlines over the mean of the image; about 1
            if they have nothing to do with each other.
        shift: (rows, columns), in pixels of the image, by which the mask fits best.
        gain: The mean gradient there, over that along the outlines as they are.
    """

    contrast: float
    shift: tuple[int, int]
    gain: float


def alignment(
    image: Shaped[np.ndarray, "h w k"], label: Integer[np.ndarray, "h w"]
) -> Alignment | None:
    """Compares the outlines of a mask, as they are and shifted, with image gradients.

    A hint, not a proof: outlines of soft objects fit a few pixels beside as well.

    Args:
        image: Any dtype and number of channels.
        label: Class ids or object ids.

    Returns:
        None without enough outline, or for an image without contrast. Images of more
        than 512 pixels are reduced by a whole factor; shifts are multiples of it.
    """
    factor = max(1, max(label.shape) // _SIDE)
    label = label[::factor, ::factor]
    slope = _gradient(image[::factor, ::factor])
    outline = _outline(label)
    outline[:_REACH] = outline[-_REACH:] = False
    outline[:, :_REACH] = outline[:, -_REACH:] = False
    places = np.nonzero(outline)
    mean = float(slope.mean())
    if len(places[0]) < _LEAST_OUTLINE or mean <= 0:
        return None
    steps = range(-_REACH, _REACH + 1, 2)
    found = {
        (dy, dx): float(slope[places[0] + dy, places[1] + dx].mean())
        for dy, dx in itertools.product(steps, steps)
    }
    here = found[0, 0]
    # The smallest of equally good shifts.
    dy, dx = max(found, key=lambda at: (found[at], -abs(at[0]) - abs(at[1])))
    gain = found[dy, dx] / max(here, 1e-6 * mean)
    return Alignment(here / mean, (dy * factor, dx * factor), gain)


def _gradient(image: Shaped[np.ndarray, "h w k"]) -> Float32[np.ndarray, "h w"]:
    """Size of the gradient of the mean over channels, by central differences."""
    gray = image.astype(np.float32).mean(-1)
    down, across = np.zeros_like(gray), np.zeros_like(gray)
    down[1:-1] = gray[2:] - gray[:-2]
    across[:, 1:-1] = gray[:, 2:] - gray[:, :-2]
    return np.hypot(down, across)


def _outline(label: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbor has another id."""
    found = np.zeros(label.shape, bool)
    found[:-1] |= label[:-1] != label[1:]
    found[:, :-1] |= label[:, :-1] != label[:, 1:]
    return found
