"""A ranking of examples to look at: one sheet of pictures, one page."""

import base64
import dataclasses
import importlib.resources
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segjax import optional
from segjax.typing import Array
from segjax.viz.instances import outlines
from segjax.viz.legend import INK, PAPER, Sheet, legend
from segjax.viz.overlay import LabelMap, Palette, ValidMap, overlay
from segjax.viz.rgb import Picture, to_rgb
from segjax.viz.triptych import fit

MIN_SIDE, MAX_SIDE = 128, 256
"""Panels are enlarged by a whole factor up to the one, and shrunk to the other."""

_MARGIN, _GUTTER, _GAP = 14, 4, 22
_LINE, _FONT_SIZE = 18, 14
_COLUMNS = 3
_SOFT = (125, 130, 140)


@dataclasses.dataclass(frozen=True)
class Card:
    """One example of a ranking.

    Attributes:
        title: Which it is.
        note: Its scores, in words.
        picture: What `panels` drew.
    """

    title: str
    note: str
    picture: Sheet


def panels(
    image: Picture,
    truth: LabelMap,
    prediction: LabelMap,
    *,
    palette: Palette,
    valid: ValidMap,
) -> Sheet:
    """Draws image | image with truth | image with prediction.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: [H, W] class ids; never read where not valid.
        prediction: [H, W] class ids.
        palette: [C, 3] colors; class 0 is not drawn.
        valid: [H, W] False where truth is void.

    Returns:
        uint8 [height, width, 3]; each panel is at least 128 pixels on its shorter
        side unless that makes the longer one over 256.
    """
    factor = max(1, min(-(-MIN_SIDE // min(image.shape[:2])), _largest(image.shape)))
    image, truth, prediction, valid = (
        np.asarray(x).repeat(factor, 0).repeat(factor, 1)
        for x in (to_rgb(image), truth, prediction, valid)
    )
    return _beside(
        image,
        overlay(image, truth, palette, valid=valid),
        overlay(image, prediction, palette),
    )


def object_panels(
    image: Picture, truth: Mapping[str, Array], found: Mapping[str, Array]
) -> Sheet:
    """Draws image | image with its true objects | image with those found.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: See `instances`.
        found: See `instances`.

    Returns:
        uint8 [height, width, 3]; small images are enlarged, and large ones shrunk until
        a panel's longer side is 256 pixels.
    """
    image = to_rgb(image)
    sides = (outlines(image, side) for side in (truth, found))
    return _beside(np.asarray(fit(image, Image.Resampling.BOX)), *sides)


def _beside(*pictures: np.ndarray) -> Sheet:
    """Pictures of one size in a row, shrunk where they are large."""
    pictures = tuple(_shrunk(picture) for picture in pictures)
    height, width = pictures[0].shape[:2]
    sheet = np.full((height, 3 * width + 2 * _GUTTER, 3), PAPER, np.uint8)
    for i, picture in enumerate(pictures):
        left = i * (width + _GUTTER)
        sheet[:, left : left + width] = picture
    return sheet


def inspection_sheet(
    cards: Sequence[Card], classes: Sequence[str], *, palette: Palette
) -> Sheet:
    """Draws cards in rows of three, with their captions, above a legend.

    Args:
        cards: In the order of the ranking; at least one.
        classes: C names, for the legend; none where no class has a color of its own.
        palette: [C, 3] colors.

    Raises:
        ValueError: If there is no card.
    """
    if not cards:
        raise ValueError("inspection_sheet needs at least one card, got none.")
    drawn = [_with_caption(card) for card in cards]
    width = max(picture.shape[1] for picture in drawn)
    rows = []
    for start in range(0, len(drawn), _COLUMNS):
        row = drawn[start : start + _COLUMNS]
        height = max(picture.shape[0] for picture in row)
        rows.append(np.hstack([_on_paper(x, height, width + _GAP) for x in row]))
    total = max(row.shape[1] for row in rows)
    rows.append(legend(_entries(classes, palette), width=total))
    sheet = np.vstack([_on_paper(row, row.shape[0], total) for row in rows])
    return np.pad(sheet, ((_MARGIN,) * 2, (_MARGIN,) * 2, (0, 0)), constant_values=255)


def write_inspection(
    path: pathlib.Path,
    cards: Sequence[Card],
    classes: Sequence[str],
    *,
    palette: Palette,
    title: str,
    facts: Sequence[tuple[str, str]],
) -> None:
    """Writes the page: one HTML file that opens offline.

    Args:
        path: The file.
        cards: In the order of the ranking.
        classes: C names.
        palette: [C, 3] colors.
        title: Of the page.
        facts: Pairs of a name and a value for the line below the title.

    Raises:
        ValueError: If Jinja2 is not installed.
    """
    jinja2 = optional.require("jinja2", extra="report", purpose="inspections")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    source = importlib.resources.files("segjax.viz").joinpath("inspection.html")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        facts=facts,
        classes=_entries(classes, palette),
        cards=[(card.title, card.note, _data_uri(card.picture)) for card in cards],
        width=max((card.picture.shape[1] for card in cards), default=0),
    )
    path.write_text(page, encoding="utf-8")


def _largest(shape: Sequence[int]) -> int:
    return MAX_SIDE // max(shape[:2])


def _shrunk(picture: np.ndarray) -> np.ndarray:
    shrink = MAX_SIDE / max(picture.shape[:2])
    if shrink >= 1:
        return picture
    size = [max(1, round(side * shrink)) for side in picture.shape[1::-1]]
    small = Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.BOX)
    return np.asarray(small)


def _with_caption(card: Card) -> Sheet:
    """The picture with title and note below it, each on one line."""
    font = ImageFont.load_default(_FONT_SIZE)
    picture = Image.fromarray(card.picture)
    size = (picture.width, picture.height + 2 * _LINE + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for line, (text, ink) in enumerate([(card.title, INK), (card.note, _SOFT)]):
        text = _cut(text, font, picture.width)
        pen.text((0, picture.height + 5 + line * _LINE), text, ink, font)
    return np.asarray(sheet)


def _cut(
    text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    """As much of a text as fits into a width, with an ellipsis where it does not."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _on_paper(picture: Sheet, height: int, width: int) -> Sheet:
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def _entries(
    classes: Sequence[str], palette: Palette
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and colors of the classes that are drawn: all but the first."""
    return [
        (name, tuple(palette[i].tolist())) for i, name in enumerate(classes) if i > 0
    ]


def _data_uri(picture: Sheet) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
