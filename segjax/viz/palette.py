"""Class colors."""

import itertools

import numpy as np
from jaxtyping import UInt8

from segjax.errors import UserError

BACKGROUND = (16, 18, 27)
"""Class 0: dark, and transparent in overlays."""

OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)

_LINEAR_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def palette(num_classes: int) -> UInt8[np.ndarray, "c 3"]:
    """Returns distinguishable colors, up to eight classes also for color-blind people.

    Class 0 is dark, the next seven are Okabe and Ito's; each further one is the color
    of medium lightness that is farthest from all previous ones in OKLab. So a class
    keeps its color when classes are added.

    Args:
        num_classes: C, at least 1.

    Returns:
        [C, 3] distinct sRGB values.

    Raises:
        ValueError: If `num_classes` is below 1.

    Reference:
        Okabe and Ito, Color Universal Design, 2008. Ottosson, OKLab, 2020.
    """
    if num_classes < 1:
        raise UserError(
            f"palette needs at least 1 class, got {num_classes}. Pass the number of "
            f"class names."
        )
    colors = [BACKGROUND, *OKABE_ITO][:num_classes]
    levels = range(0, 256, 15)
    candidates = np.array(list(itertools.product(levels, repeat=3)))
    lab = _oklab(candidates)
    # Not too dark, light or saturated, and not gray, the color of ignored pixels.
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    suitable = (abs(light - 0.68) < 0.2) & (abs(chroma - 0.13) < 0.07)
    candidates, lab = candidates[suitable], lab[suitable]
    taken = _oklab(np.array(colors))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=-1).min(axis=1)
    while len(colors) < num_classes:
        best = int(distance.argmax())
        colors.append(tuple(candidates[best].tolist()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=-1))
    return np.array(colors, np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Converts [N, 3] sRGB in 0..255 to OKLab, which is perceptually uniform."""
    x = rgb / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _LINEAR_TO_LMS.T) @ _LMS_TO_OKLAB.T
