"""Image files opened within limits: pictures by Pillow, arrays by NumPy."""

import io
import math
import struct
import zlib

import numpy as np
import PIL.Image

from segjax.files import limits

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy")

# Pillow knows many more, some of which start other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""What turns a picture of an EXIF orientation; those from 5 exchange its sides."""


def decode(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> PIL.Image.Image:
    """Decodes a picture completely, upright as its EXIF data say.

    Args:
        content: Of the file.
        where: The file, for messages.
        max_pixels: Height times width that it may have.

    Returns:
        The picture; the first one of an MPO file, in which phones keep further views.

    Raises:
        ValueError: If it is broken or cut, its EXIF data too, too large, of several
            images, or would lose bits.
    """
    image = _opened(content, where, max_pixels)
    # Pillow turns TIFFs itself, as they are loaded.
    turn = None if image.format == "TIFF" else _UPRIGHT.get(_orientation(image, where))
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise whatever they meet.
        raise broken(where, content, error) from error
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format
    return turned


def size(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> tuple[int, int]:
    """(height, width) of what `decode` gives, from the header alone; not for TIFFs."""
    image = _opened(content, where, max_pixels)
    width, height = image.size
    return (width, height) if _orientation(image, where) >= 5 else (height, width)


def is_deep(content: bytes, where: str) -> bool:
    """Whether a picture has one channel of more than 8 bits, by its header."""
    return _opened(content, where, limits.MAX_PIXELS).mode.startswith(("I", "F"))


def is_lossy(content: bytes, image: PIL.Image.Image) -> bool:
    """Whether a file is compressed so that its numbers are not those once saved.

    Args:
        content: Of the file.
        image: As `decode` gave it.
    """
    if image.format == "WEBP":
        return b"VP8 " in content[:4096]
    compression = str(image.info.get("compression", ""))
    return image.format in ("JPEG", "MPO") or "jpeg" in compression


def load_npy(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> np.ndarray:
    """An array from a .npy file; no objects, for which code would be executed.

    Raises:
        ValueError: If it is broken, cut or too large.
    """
    try:
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
        needed = math.prod(shape) * dtype.itemsize
        # Before memory is asked for.
        if not dtype.hasobject and needed != len(content) - file.tell():
            raise ValueError(f"{needed} bytes of numbers needed by its header")
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, and what headers cause.
        raise broken(where, content, error) from error
    if array.ndim in (2, 3):
        check_size(array.shape[:2], where, max_pixels)
    return array


def check_size(
    size: tuple[int, ...], where: str, max_pixels: int, *, nbytes: int = 0
) -> None:
    """Raises a ValueError for an image of too many pixels, before it is decoded.

    Args:
        size: (height, width).
        where: The file.
        max_pixels: Height times width that it may have.
        nbytes: Of the whole image in memory, where that is known.
    """
    height, width = size
    most = limits.BYTES_PER_PIXEL * max_pixels
    if height * width > max_pixels:
        allowed = f"{max_pixels:,} pixels"
    elif max(height, width) > limits.MAX_SIDE:
        allowed = f"{limits.MAX_SIDE:,} pixels a side"
    elif nbytes > most:
        allowed = f"{most:,} bytes in memory"
    else:
        return
    raise ValueError(
        f"{where} is {width}x{height} pixels: needed at most {allowed}; cut it into "
        f"tiles (or, to predict it in one piece, --max-pixels N)."
    )


def broken(where: str, content: bytes, error: Exception) -> ValueError:
    """The error for a file that its decoder did not like."""
    reason = " ".join(str(error).partition(" <_io")[0].split())
    return ValueError(
        f"{where} is broken: needed a complete image file, got {len(content)} bytes "
        f"that cannot be decoded ({reason or type(error).__name__}); replace it."
    )


def _opened(content: bytes, where: str, max_pixels: int) -> PIL.Image.Image:
    """Reads the header of a picture, and checks what it says."""
    check_png(content, where)
    try:
        image = _identified(content)
        pages = getattr(image, "n_frames", 1)
    except Exception as error:
        raise broken(where, content, error) from error
    check_size(image.size[::-1], where, max_pixels)
    if pages > 1 and image.format != "MPO":
        raise ValueError(
            f"{where} has {pages} pages: needed one image a file; save each page as "
            f"its own file."
        )
    return image


def _identified(content: bytes) -> PIL.Image.Image:
    """What `PIL.Image.open` does but its check of pixels, whose limit is global."""
    PIL.Image.init()
    for name in _FORMATS:
        factory, accept = PIL.Image.OPEN[name]
        if accept is None or accept(content[:16]) is True:
            return factory(io.BytesIO(content), "")
    raise ValueError("cannot identify image file")


def _orientation(image: PIL.Image.Image, where: str) -> int:
    """As EXIF counts them, 1 for upright; of the image, not of its thumbnail."""
    try:
        found = _exif_orientation(image.info.get("exif", b""))
        return found or int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{where} has damaged EXIF data ({reason}), so it is not known which side "
            f"is up: needed whole ones, or none; save it again without them."
        ) from error


def _exif_orientation(exif: bytes) -> int | None:
    """Where Pillow only warns of cut data and forgets what followed, this raises."""
    exif = exif.removeprefix(b"Exif\0\0")
    if not exif:
        return None
    order = {b"II*\0": "<", b"MM\0*": ">"}[exif[:4]]
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH2x", exif, place)
        if tag == _ORIENTATION and kind == 3:  # SHORT, which lies in the entry.
            return value
    return None


def check_png(content: bytes, where: str) -> None:
    """Refuses PNGs whose bytes changed, or that Pillow would silently cut to 8 bits."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 26:
        return
    depth, kind = content[24], content[25]
    if depth == 16 and kind != 0:  # 0 is gray.
        raise ValueError(
            f"{where} is a 16-bit PNG with color or transparency, which cannot be read "
            f"without loss: save it as TIFF or .npy."
        )
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        name, end = content[place + 4 : place + 8], place + 8 + length
        is_needed = name[:1].isupper()  # By the format's rules of names.
        check = int.from_bytes(content[end : end + 4])
        # Pillow stops at the last row, before the checksums of what it has read.
        if is_needed and zlib.crc32(memoryview(content)[place + 4 : end]) != check:
            raise broken(where, content, ValueError(f"wrong checksum of {name!r}"))
        if name == b"IEND":
            return
        place = end + 4
    raise broken(where, content, ValueError("it is cut off"))
