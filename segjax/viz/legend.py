"""The legend: class names and their colors."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Sheet = UInt8[np.ndarray, "_ _ 3"]
"""A picture of any size."""

PAPER, INK, FRAME = (255, 255, 255), (60, 60, 67), (205, 205, 210)
LINE, FONT_SIZE = 26, 17


def legend(entries: Sequence[tuple[str, tuple[int, ...]]], *, width: int) -> Sheet:
    """Draws names next to swatches of their colors, wrapped into lines.

    Args:
        entries: Names and their RGB colors.
        width: Width of the picture, in pixels.

    Returns:
        uint8 [26 * lines, width, 3]; one empty line if there are no entries.
    """
    font = ImageFont.load_default(FONT_SIZE)
    places, lines = _wrap([name for name, _ in entries], font, width)
    sheet = Image.new("RGB", (width, lines * LINE), PAPER)
    pen = ImageDraw.Draw(sheet)
    for (name, swatch), (left, line) in zip(entries, places, strict=True):
        middle = line * LINE + LINE // 2
        box = (left, middle - 6, left + 12, middle + 6)
        pen.rounded_rectangle(box, 3, fill=swatch, outline=FRAME)
        pen.text((left + 18, middle), name, INK, font, anchor="lm")
    return np.asarray(sheet)


def _wrap(
    names: Sequence[str], font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> tuple[list[tuple[float, int]], int]:
    """Wraps names into lines; returns their (x, line), and the number of lines."""
    places, x, line = [], 0.0, 0
    for name in names:
        step = 18 + font.getlength(name) + 16
        if x and x + step > width:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += step
    return places, line + 1
