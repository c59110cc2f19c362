"""Drawing objects on their image: masks, boxes, classes and scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont

from segjax.typing import Array
from segjax.viz.legend import Sheet
from segjax.viz.overlay import Palette, find_boundaries
from segjax.viz.palette import palette
from segjax.viz.rgb import Picture, Rgb, to_rgb
from segjax.viz.triptych import draw_sheet, fit, scale_of

_COLORS = 24  # Number of different colors in an image; more objects reuse them.
_MAX_CAPTIONS = 25  # More captions would cover the objects.
_FONT_SIZE = 12


def instances(
    image: Picture,
    objects: Mapping[str, Array],
    *,
    classes: Sequence[str],
    alpha: float = 0.45,
) -> Sheet:
    """Draws each object in a color of its own, with its box and its name.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        objects: `masks` bool or probabilities [n, H, W], drawn where at least 0.5;
            `boxes` [n, 4] (x0, y0, x1, y1) in pixels; `classes` [n] in [1, C); `scores`
            [n] in [0, 1] if they were predicted. Sorted by score; the best are drawn on
            top.
        classes: C names, background first.
        alpha: Opacity of the color inside a mask, in [0, 1]; its outline is opaque.

    Returns:
        [height, width, 3]; small images are enlarged, so that names are legible. There
        are no names if there is only one class, and neither names nor scores for more
        than 25 objects.
    """
    return _draw(image, objects, _captions(objects, classes), alpha)


def outlines(
    image: Picture, objects: Mapping[str, Array], *, alpha: float = 0.45
) -> Sheet:
    """Draws objects like `instances`, without names and scores.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        objects: See `instances`; only `masks` and `boxes` are read.
        alpha: See `instances`.
    """
    return _draw(image, objects, [""] * len(np.asarray(objects["boxes"])), alpha)


def _draw(
    image: Picture,
    objects: Mapping[str, Array],
    captions: Sequence[str],
    alpha: float,
) -> Sheet:
    masks = np.asarray(objects["masks"]) >= 0.5
    colors = _colors(len(masks))
    picture = fit(_blend_masks(image, masks, colors, alpha), Image.Resampling.BOX)
    scale = scale_of(masks.shape[1:], picture)
    boxes = np.asarray(objects["boxes"], np.float64) * scale
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)
    for box, text, shade in zip(boxes[::-1], captions[::-1], colors[::-1], strict=True):
        ink = tuple(shade.tolist())
        x0, y0, x1, y1 = box.tolist()
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=ink)
        if text and len(masks) <= _MAX_CAPTIONS:
            _draw_caption(pen, font, text, (x0, y0), ink, picture.size)
    return np.asarray(picture)


def instance_triptych(
    image: Picture,
    truth: Mapping[str, Array],
    found: Mapping[str, Array],
    *,
    classes: Sequence[str],
) -> Sheet:
    """Draws image | truth | prediction with captions; see `instances`.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: See `instances`.
        found: See `instances`.
        classes: C names, background first.
    """
    image = to_rgb(image)  # Once, so that panels have the same brightness.
    num_objects = (len(np.asarray(side["masks"])) for side in (truth, found))
    panels = [("image", fit(image, Image.Resampling.BOX))]
    for name, side, count in zip(
        ("truth", "prediction"), (truth, found), num_objects, strict=True
    ):
        drawn = Image.fromarray(instances(image, side, classes=classes))
        panels.append((f"{name}: {count}", drawn))
    return draw_sheet(panels, [])


def _colors(count: int) -> Palette:
    distinct = palette(1 + min(count, _COLORS))[1:]
    return distinct[np.arange(count) % max(1, len(distinct))]


def _blend_masks(
    image: Picture, masks: Bool[np.ndarray, "n h w"], colors: Palette, alpha: float
) -> Rgb:
    """Draws masks over the image, the first on top."""
    blended = to_rgb(image).astype(np.float32)
    for mask, shade in zip(masks[::-1], colors[::-1], strict=True):
        outline = find_boundaries(mask.astype(np.uint8)) & mask
        opacity = np.where(outline, 1.0, alpha * mask)[..., None]
        blended = (1 - opacity) * blended + opacity * shade
    return np.round(blended).astype(np.uint8)


def _captions(objects: Mapping[str, Array], classes: Sequence[str]) -> list[str]:
    names = [str(classes[k]) for k in np.asarray(objects["classes"]).tolist()]
    if len(classes) == 2:  # The same name everywhere would only cover small objects.
        names = [""] * len(names)
    if "scores" not in objects:
        return names
    scores: Float[np.ndarray, " n"] = np.asarray(objects["scores"])
    pairs = zip(names, scores.tolist(), strict=True)
    return [f"{name} {score:.2f}".strip() for name, score in pairs]


def _draw_caption(pen, font, text: str, corner, ink, size) -> None:
    """Draws a caption above the box, or inside it if there is no space above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(0, corner[0]), max(0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    light = 0.299 * ink[0] + 0.587 * ink[1] + 0.114 * ink[2] > 140
    pen.rectangle((x, y, x + width, y + height), fill=ink)
    pen.text(
        (x + 2 - left, y + 2 - top), text, (0, 0, 0) if light else (255,) * 3, font
    )
