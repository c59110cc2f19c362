"""A ranking of examples as a sheet of pictures and as an HTML page."""

import base64
import dataclasses
import importlib.resources
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segjax import optional
from segjax.errors import UserError
from segjax.typing import Array
from segjax.viz.instances import outlines
from segjax.viz.legend import INK, PAPER, Sheet, legend
from segjax.viz.overlay import LabelMap, Palette, ValidMap, overlay
from segjax.viz.rgb import Picture, to_rgb
from segjax.viz.triptych import fit

MIN_SIDE, MAX_SIDE = 128, 256
"""Small panels are enlarged by an integer factor towards MIN_SIDE on the shorter side;
large ones are shrunk to MAX_SIDE on the longer side."""

_MARGIN, _GUTTER, _GAP = 14, 4, 22
_LINE, _FONT_SIZE = 18, 14
_COLUMNS = 3
_SOFT = (125, 130, 140)


@dataclasses.dataclass(frozen=True)
class Card:
    """One example of a ranking.

    Attributes:
        title: Its name.
        note: Its scores, as text.
        picture: Drawn by `panels` or `object_panels`.
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
        valid: [H, W] False where truth is ignored.

    Returns:
        uint8 [height, width, 3]; each panel is at least 128 pixels on its shorter side
        unless the longer side would then exceed 256.
    """
    largest = MAX_SIDE // max(image.shape[:2])
    factor = max(1, min(-(-MIN_SIDE // min(image.shape[:2])), largest))
    image, truth, prediction, valid = (
        np.asarray(x).repeat(factor, 0).repeat(factor, 1)
        for x in (to_rgb(image), truth, prediction, valid)
    )
    return _side_by_side(
        image,
        overlay(image, truth, palette, valid=valid),
        overlay(image, prediction, palette),
    )


def object_panels(
    image: Picture, truth: Mapping[str, Array], found: Mapping[str, Array]
) -> Sheet:
    """Draws image | image with true objects | image with detected objects.

    Args:
        image: [H, W, K] as stored, shown by `to_rgb`.
        truth: See `instances`.
        found: See `instances`.

    Returns:
        uint8 [height, width, 3]; small images are enlarged, and panels are shrunk to at
        most 256 pixels on their longer side.
    """
    image = to_rgb(image)
    sides = (outlines(image, side) for side in (truth, found))
    return _side_by_side(np.asarray(fit(image, Image.Resampling.BOX)), *sides)


def _side_by_side(*pictures: np.ndarray) -> Sheet:
    """Puts pictures of equal size in a row, shrunk to MAX_SIDE."""
    pictures = tuple(_shrink(picture) for picture in pictures)
    height, width = pictures[0].shape[:2]
    sheet = np.full((height, 3 * width + 2 * _GUTTER, 3), PAPER, np.uint8)
    for i, picture in enumerate(pictures):
        left = i * (width + _GUTTER)
        sheet[:, left : left + width] = picture
    return sheet


def inspection_sheet(
    cards: Sequence[Card], classes: Sequence[str], *, palette: Palette
) -> Sheet:
    """Draws cards with captions in rows of three, and a legend below.

    Args:
        cards: In the order of the ranking; at least one.
        classes: C names, for the legend; empty if colors do not stand for classes.
        palette: [C, 3] colors.

    Raises:
        ValueError: If there are no cards.
    """
    if not cards:
        raise UserError("inspection_sheet needs at least one card, got none.")
    drawn = [_draw_card(card) for card in cards]
    width = max(picture.shape[1] for picture in drawn)
    rows = []
    for start in range(0, len(drawn), _COLUMNS):
        row = drawn[start : start + _COLUMNS]
        height = max(picture.shape[0] for picture in row)
        rows.append(np.hstack([_pad(x, height, width + _GAP) for x in row]))
    total = max(row.shape[1] for row in rows)
    rows.append(legend(_entries(classes, palette), width=total))
    sheet = np.vstack([_pad(row, row.shape[0], total) for row in rows])
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
    """Writes a self-contained HTML page.

    Args:
        path: The file.
        cards: In the order of the ranking.
        classes: C names.
        palette: [C, 3] colors.
        title: Title of the page.
        facts: (name, value) pairs for the line below the title.

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


def _shrink(picture: np.ndarray) -> np.ndarray:
    shrink = MAX_SIDE / max(picture.shape[:2])
    if shrink >= 1:
        return picture
    size = [max(1, round(side * shrink)) for side in picture.shape[1::-1]]
    small = Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.BOX)
    return np.asarray(small)


def _draw_card(card: Card) -> Sheet:
    """Draws the picture with title and note below it, each on one line."""
    font = ImageFont.load_default(_FONT_SIZE)
    picture = Image.fromarray(card.picture)
    size = (picture.width, picture.height + 2 * _LINE + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for line, (text, ink) in enumerate([(card.title, INK), (card.note, _SOFT)]):
        text = _truncate(text, font, picture.width)
        pen.text((0, picture.height + 5 + line * _LINE), text, ink, font)
    return np.asarray(sheet)


def _truncate(
    text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    """Truncates a text to a width in pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _pad(picture: Sheet, height: int, width: int) -> Sheet:
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def _entries(
    classes: Sequence[str], palette: Palette
) -> list[tuple[str, tuple[int, ...]]]:
    """Returns names and colors of all classes except background."""
    return [
        (name, tuple(palette[i].tolist())) for i, name in enumerate(classes) if i > 0
    ]


def _data_uri(picture: Sheet) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
