"""Image, ground truth and prediction side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer
from PIL import Image, ImageDraw, ImageFont

from segjax import ops
from segjax.errors import UserError
from segjax.typing import Array
from segjax.viz.legend import FONT_SIZE, FRAME, INK, LINE, PAPER, Sheet, legend
from segjax.viz.overlay import LabelMap, Palette, ValidMap, label_to_rgb
from segjax.viz.rgb import Picture, to_rgb

MIN_SIDE, MAX_SIDE = 256, 1024
"""Small panels are enlarged by an integer factor to at least MIN_SIDE on the shorter
side; large ones are shrunk to MAX_SIDE on the longer side."""

MARGIN, GUTTER = 10, 6


def triptych(
    image: Picture,
    truth: LabelMap,
    prediction: Integer[Array, "h2 w2"],
    *,
    palette: Palette,
    classes: Sequence[str],
    valid: ValidMap | None = None,
) -> Sheet:
    """Draws image | truth | prediction with captions and a legend.

    If the prediction is smaller than the image, as from a U-Net with valid padding,
    image and truth are center-cropped.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: [H, W] class ids; never read where not valid.
        prediction: [h, w] class ids, at most as large as the image.
        palette: [C, 3] colors.
        classes: C names, for the legend of the classes that occur.
        valid: [H, W] False where truth is ignored; None for all True.

    Returns:
        uint8 [height, width, 3]; small images are enlarged without smoothing to at
        least 256 pixels on their shorter side, large ones shrunk to 1024.
    """
    size = np.asarray(prediction).shape
    valid = np.ones(np.shape(truth), bool) if valid is None else valid
    image, truth, valid = (
        ops.center_crop(np.asarray(x)[None], size)[0] for x in (image, truth, valid)
    )
    panels = [
        ("image", fit(to_rgb(image), Image.Resampling.BOX)),
        ("truth", fit(label_to_rgb(truth, palette, valid), Image.Resampling.NEAREST)),
        (
            "prediction",
            fit(label_to_rgb(prediction, palette), Image.Resampling.NEAREST),
        ),
    ]
    shown = np.union1d(np.asarray(truth)[np.asarray(valid)], np.asarray(prediction))
    names = list(classes)
    entries = [(names[i], tuple(palette[i].tolist())) for i in shown.tolist()]
    return draw_sheet(panels, entries)


def contact_sheet(pictures: Sequence[Sheet]) -> Sheet:
    """Stacks pictures of any size from top to bottom, aligned at the left.

    Raises:
        ValueError: If there are no pictures.
    """
    if not pictures:
        raise UserError("contact_sheet needs at least one picture, got none.")
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        row = np.full((picture.shape[0], width, 3), PAPER, np.uint8)
        row[:, : picture.shape[1]] = picture
        rows.append(row)
    return np.concatenate(rows)


def fit(pixels: np.ndarray, resample: Image.Resampling) -> Image.Image:
    """Enlarges a small picture without smoothing, or shrinks a large one."""
    height, width = pixels.shape[:2]
    factor = -(-MIN_SIDE // min(height, width))
    if factor > 1:
        pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Image.fromarray(pixels)
    shrink = MAX_SIDE / max(picture.size)
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), resample)
    return picture


def scale_of(size: Sequence[int], picture: Image.Image) -> float:
    """Returns the scale of a picture from `fit`, relative to its original size."""
    return picture.height / size[0]


def draw_sheet(
    panels: Sequence[tuple[str, Image.Image]],
    entries: Sequence[tuple[str, tuple[int, ...]]],
) -> Sheet:
    """Draws panels of equal size side by side, with captions and a legend below.

    Args:
        panels: (caption, picture) pairs.
        entries: (name, color) pairs for the legend; empty for no legend.
    """
    font = ImageFont.load_default(FONT_SIZE)
    width, height = panels[0][1].size
    total = 2 * MARGIN + len(panels) * width + (len(panels) - 1) * GUTTER
    classes = Image.fromarray(legend(entries, width=total - 2 * MARGIN))
    below = MARGIN + LINE + height + 8
    sheet = Image.new("RGB", (total, below + classes.height + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (caption, picture) in enumerate(panels):
        x, y = MARGIN + i * (width + GUTTER), MARGIN + LINE
        pen.text((x, MARGIN + LINE / 2 - 2), caption, INK, font, anchor="lm")
        pen.rectangle((x - 1, y - 1, x + width, y + height), outline=FRAME)
        sheet.paste(picture, (x, y))
    sheet.paste(classes, (MARGIN, below))
    return np.asarray(sheet)
