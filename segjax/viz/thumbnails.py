"""Pictures of a run folder in its report: small, with captions and links."""

import base64
import dataclasses
import io
import pathlib
import urllib.parse
from collections.abc import Sequence

import numpy as np
from PIL import Image

from segjax.viz.rgb import Rgb

MAX_BYTES = 48_000
"""Of an embedded picture. With 36 of them, a report stays below 3 MB."""

_WIDTH = 1040
"""Of a picture that was shrunk, in pixels; the page shows it in 800 or fewer."""
_SMALLEST_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A picture of the run folder.

    Attributes:
        title: Of the image that it shows: its Title, or the name of the file.
        note: Its Description, or "".
        uri: The embedded picture; None if the file is damaged.
        link: The file's path relative to the report if it has more pixels, else None.
    """

    title: str
    note: str
    uri: str | None
    link: str | None


def thumbnails(run: pathlib.Path, files: Sequence[pathlib.Path]) -> list[Thumbnail]:
    """Reads pictures of a run folder, and shrinks those of more than `MAX_BYTES`.

    Args:
        run: The run folder, in which the report lies.
        files: PNG files in it.
    """
    return [_thumbnail(run, path) for path in files]


def picture_uri(pixels: Rgb) -> str:
    """Returns a picture [H, W, 3] as the `src` of an image, of `MAX_BYTES` at most."""
    return data_uri(_shrunk(Image.fromarray(np.asarray(pixels))), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Returns a picture's content as the `src` of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _thumbnail(run: pathlib.Path, path: pathlib.Path) -> Thumbnail:
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            title = str(picture.info.get("Title", path.stem))
            note = str(picture.info.get("Description", ""))
            small = None if len(content) <= MAX_BYTES else _shrunk(picture)
    except Exception:  # Pillow's plugins raise exceptions of many types.
        return Thumbnail(path.stem, "The picture is damaged.", None, None)
    if small is None:
        return Thumbnail(title, note, data_uri(content, "png"), None)
    link = urllib.parse.quote(path.relative_to(run).as_posix())
    return Thumbnail(title, note, data_uri(small, "jpeg"), link)


def _shrunk(picture: Image.Image) -> bytes:
    """Compresses a picture as JPEG of at most `MAX_BYTES`, smaller if need be."""
    width = min(picture.width, _WIDTH)
    whole = picture.convert("RGB")
    while True:
        height = max(1, round(whole.height * width / whole.width))
        made = whole.resize((width, height), Image.Resampling.BOX)
        for quality in (90, 75, 60):
            file = io.BytesIO()
            made.save(file, "JPEG", quality=quality)
            if len(file.getvalue()) <= MAX_BYTES or width <= _SMALLEST_WIDTH:
                return file.getvalue()
        width = int(width * 0.75)
