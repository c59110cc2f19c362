"""Reading TIFF files that Pillow would reduce to 8 bits or cannot read."""

import io
import logging
import mmap
import struct

import numpy as np
import tifffile

from segjax.errors import UserError
from segjax.files import images, limits

# Errors are reported in our own message; tifffile's log stays available to users.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

ORIENTATION = 274
_COLOR_PHOTOMETRICS = (
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.SEPARATED,
    tifffile.PHOTOMETRIC.YCBCR,
    tifffile.PHOTOMETRIC.CIELAB,
)


def read(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> np.ndarray | None:
    """Reads the pixels as stored.

    Args:
        content: The file's content.
        where: Its name, for messages.
        max_pixels: Maximum height times width.

    Returns:
        [H, W] or [H, W, K] of the file's dtype, with its orientation applied. None for
        files left to Pillow: 8-bit pictures, broken files, and one channel with a
        compression that needs imagecodecs.

    Raises:
        ValueError: If the file holds several images, is too large, or needs
            imagecodecs.
    """
    try:
        file = open_tiff(content)
        page, series = file.pages.first, file.series
        axes = _axes(series[0].axes, series[0].shape)
    except Exception:  # Broken: Pillow reports it.
        return None
    with file:
        if _is_picture(page, axes, len(series)):
            return None
        _check(axes, len(series), len(file.pages), where)
        check_size(series[0], where, max_pixels)
        try:
            pixels = decode(series[0])
        except Exception as error:
            if page.samplesperpixel == 1:
                return None
            reason = " ".join(str(error).split())
            raise UserError(
                f"{where} cannot be decoded ({reason}): save it without compression, "
                f"or install imagecodecs."
            ) from error
    pixels = pixels.reshape([n for n, a in _squeeze(series[0].axes, pixels.shape)])
    pixels = np.moveaxis(pixels, 0, -1) if axes[0] in "SC" else pixels
    return upright(pixels, page)


def open_tiff(content: bytes) -> tifffile.TiffFile:
    """Reads the headers, of this file only; raises exceptions of any type."""
    count_pages(content)
    return tifffile.TiffFile(io.BytesIO(content), _multifile=False)


def count_pages(content: bytes | mmap.mmap) -> int:
    """Counts the pages by their chain; tifffile would follow a cycle for hours.

    Raises:
        ValueError: If there are too many, as in a cycle.
    """
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in (b"+\0", b"\0+")
    offset, count, entry = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    (place,) = struct.unpack_from(order + offset, content, 8 if is_big else 4)
    for number in range(limits.TIFF_PAGES):
        if not place or place + 8 > len(content):
            return number  # The last page, or truncated, which tifffile reports.
        (tags,) = struct.unpack_from(order + count, content, place)
        place += struct.calcsize(order + count) + entry * tags
        if place + struct.calcsize(order + offset) > len(content):
            return number + 1
        (place,) = struct.unpack_from(order + offset, content, place)
    raise UserError(
        f"it has more than {limits.TIFF_PAGES} pages, or its pages form a cycle"
    )


def decode(series: tifffile.TiffPageSeries) -> np.ndarray:
    """Decodes a series and checks its shape; raises exceptions of any type."""
    pixels = series.asarray()
    if pixels.shape != series.shape:  # For truncated data, tifffile only warns.
        raise UserError(f"{pixels.size} numbers instead of {list(series.shape)}")
    return pixels


def check_size(series: tifffile.TiffPageSeries, where: str, max_pixels: int) -> None:
    """Raises a ValueError for an image that is too large to be decoded."""
    lengths = dict(zip(series.axes, series.shape, strict=True))
    size = lengths.get("Y", 1), lengths.get("X", 1)
    images.check_size(size, where, max_pixels, nbytes=series.nbytes)


def upright(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Applies the orientation tag of a file to its image [H, W] or [H, W, K]."""
    tag = page.tags.get(ORIENTATION)
    orientation = 1 if tag is None else tag.value
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _axes(axes: str, shape: tuple[int, ...]) -> str:
    return "".join(axis for _, axis in _squeeze(axes, shape))


def _squeeze(axes: str, shape: tuple[int, ...]) -> list[tuple[int, str]]:
    """Returns lengths and names of the axes, without length-1 axes besides Y and X."""
    pairs = zip(shape, axes, strict=True)
    return [(n, axis) for n, axis in pairs if n > 1 or axis in "YX"]


def _is_picture(page, axes: str, series: int) -> bool:
    """Whether an image has 8 bits and is gray or color; several are left to Pillow."""
    if page.dtype is None or page.dtype.itemsize > 1 or "C" in axes or series > 1:
        return False
    # A fourth channel not declared as transparency is data.
    alpha = page.extrasamples or ()
    if any(kind == tifffile.EXTRASAMPLE.UNSPECIFIED for kind in alpha):
        return False
    if page.samplesperpixel - len(alpha) == 1:
        return True
    return page.photometric in _COLOR_PHOTOMETRICS


def _check(axes: str, series: int, pages: int, where: str) -> None:
    if series > 1 or axes not in ("YX", "YXS", "SYX", "YXC", "CYX"):
        raise UserError(
            f"{where} has {pages} pages (axes {axes}): needed one image per file; save "
            f"each page as a file, or the channels as one page [H, W, K] "
            f'(tifffile.imwrite(..., planarconfig="contig")) or as .npy.'
        )
