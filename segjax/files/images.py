"""Reading image files within limits: pictures with Pillow, arrays with NumPy."""

import io
import math
import struct
import zlib

import numpy as np
import PIL.Image

from segjax.errors import UserError
from segjax.files import limits

SUFFIXES = tuple(".png .jpg .jpeg .tif .tiff .bmp .gif .webp .npy .dcm".split())

# Pillow supports many more, some of which run other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
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
"""The transpose for each EXIF orientation; those from 5 swap height and width."""
_ROWS = 256


def decode(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> PIL.Image.Image:
    """Decodes a picture completely and applies its EXIF orientation.

    Args:
        content: The file's content.
        where: Its name, for messages.
        max_pixels: Maximum height times width.

    Returns:
        The picture; the first one of an MPO file, in which phones store further views.

    Raises:
        ValueError: If the picture or its EXIF data are corrupt or truncated, or it is
            too large, has several images, or would lose bits.
    """
    image = _open(content, where, max_pixels)
    # Pillow applies the orientation of TIFFs when it loads them.
    is_tiff = image.format == "TIFF"
    method = None if is_tiff else _UPRIGHT.get(_orientation(image, where))
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise exceptions of many types.
        raise broken(where, content, error) from error
    if method is None:
        return image
    upright = image.transpose(method)
    upright.format = image.format
    return upright


def pixels(image: PIL.Image.Image) -> np.ndarray:
    """Copies the pixels to an array [H, W] or [H, W, K], of the dtype of the mode.

    By strips of rows: NumPy's conversion holds three copies at once, which are 180 MB
    for a photograph of 20 megapixels.
    """
    width, height = image.size

    def strip(top: int) -> np.ndarray:
        return np.asarray(image.crop((0, top, width, min(height, top + _ROWS))))

    first = strip(0)
    made = np.empty((height, *first.shape[1:]), first.dtype)
    made[:_ROWS] = first
    for top in range(_ROWS, height, _ROWS):
        made[top : top + _ROWS] = strip(top)
    return made


def size(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> tuple[int, int]:
    """Reads the (height, width) of `decode`'s result from the header; not for TIFF."""
    image = _open(content, where, max_pixels)
    width, height = image.size
    return (width, height) if _orientation(image, where) >= 5 else (height, width)


def stored_size(content: bytes, where: str) -> tuple[int, int]:
    """Reads the (height, width) from the header, without EXIF orientation."""
    width, height = _open(content, where, limits.MAX_PIXELS).size
    return height, width


def mode(content: bytes, where: str) -> str:
    """Reads Pillow's name of the pixel format from the header: `L`, `P`, `RGB`, ..."""
    return _open(content, where, limits.MAX_PIXELS).mode


def palette(content: bytes, where: str) -> tuple[int, ...] | None:
    """Reads the colors of a palette from the header, as 0xRRGGBB; None without one."""
    image = _open(content, where, limits.MAX_PIXELS)
    if image.mode != "P" or image.palette is None or image.palette.mode != "RGB":
        return None
    raw = np.frombuffer(bytes(image.palette.palette), np.uint8)
    red, green, blue = raw[: raw.size // 3 * 3].reshape(-1, 3).astype(int).T
    return tuple((red << 16 | green << 8 | blue).tolist())


def exceeds_8_bits(content: bytes, where: str) -> bool:
    """Whether a picture has one channel of more than 8 bits, judged by its header."""
    return _open(content, where, limits.MAX_PIXELS).mode.startswith(("I", "F"))


def is_lossy(content: bytes, image: PIL.Image.Image) -> bool:
    """Whether a file has lossy compression.

    Args:
        content: The file's content.
        image: The decoded image.
    """
    if image.format == "WEBP":
        return b"VP8 " in content[:4096]
    compression = str(image.info.get("compression", ""))
    return image.format in ("JPEG", "MPO") or "jpeg" in compression


def load_npy(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> np.ndarray:
    """Loads an array from a .npy file, without pickled objects.

    Raises:
        ValueError: If it is corrupt, truncated or too large.
    """
    try:
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
        needed = math.prod(shape) * dtype.itemsize
        # Checked before memory is allocated.
        if not dtype.hasobject and needed != len(content) - file.tell():
            raise UserError(f"its header declares {needed} bytes of numbers")
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, and more from bad headers.
        raise broken(where, content, error) from error
    if array.ndim in (2, 3):
        check_size(array.shape[:2], where, max_pixels)
    return array


def check_size(
    size: tuple[int, ...], where: str, max_pixels: int, *, nbytes: int = 0
) -> None:
    """Raises a ValueError for an image that is too large to be decoded.

    Args:
        size: (height, width).
        where: The file, for messages.
        max_pixels: Maximum height times width.
        nbytes: Bytes of the decoded image, if known.
    """
    height, width = size
    max_bytes = limits.BYTES_PER_PIXEL * max_pixels
    if height * width > max_pixels:
        allowed = f"{max_pixels:,} pixels"
    elif max(height, width) > limits.MAX_SIDE:
        allowed = f"{limits.MAX_SIDE:,} pixels per side"
    elif nbytes > max_bytes:
        allowed = f"{max_bytes:,} bytes in memory"
    else:
        return
    raise UserError(
        f"{where} is {width}x{height} pixels: needed at most {allowed}; cut it into "
        f"tiles (or, to predict it as a whole, pass --max-pixels N)."
    )


def broken(where: str, content: bytes, error: Exception) -> ValueError:
    """Returns the error for a file that cannot be decoded."""
    reason = " ".join(str(error).partition(" <_io")[0].split())
    return UserError(
        f"{where} is broken: needed a complete image file, got {len(content)} bytes "
        f"that cannot be decoded ({reason or type(error).__name__}); replace it."
    )


def _open(content: bytes, where: str, max_pixels: int) -> PIL.Image.Image:
    """Reads and checks the header of a picture."""
    check_png(content, where)
    try:
        image = _identify(content)
        pages = getattr(image, "n_frames", 1)
    except Exception as error:
        raise broken(where, content, error) from error
    check_size(image.size[::-1], where, max_pixels)
    if pages > 1 and image.format != "MPO":
        raise UserError(
            f"{where} has {pages} pages: needed one image per file; save each page as "
            f"a file."
        )
    return image


def _identify(content: bytes) -> PIL.Image.Image:
    """Works like `PIL.Image.open`, but without its global limit of pixels."""
    PIL.Image.init()
    for name in _FORMATS:
        factory, accept = PIL.Image.OPEN[name]
        if accept is None or accept(content[:16]) is True:
            return factory(io.BytesIO(content), "")
    raise UserError("cannot identify image file")


def _orientation(image: PIL.Image.Image, where: str) -> int:
    """Returns the EXIF orientation of the image (not its thumbnail); 1 is upright."""
    try:
        found = _exif_orientation(image.info.get("exif", b""))
        return found or int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{where} has damaged EXIF data ({reason}), so its orientation is unknown: "
            f"needed valid EXIF data, or none; save it again without EXIF data."
        ) from error


def _exif_orientation(exif: bytes) -> int | None:
    """Reads the orientation; raises if truncated, unlike Pillow, which only warns."""
    exif = exif.removeprefix(b"Exif\0\0")
    if not exif:
        return None
    order = {b"II*\0": "<", b"MM\0*": ">"}[exif[:4]]
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH2x", exif, place)
        if tag == _ORIENTATION and kind == 3:  # SHORT, stored in the entry itself.
            return value
    return None


def check_png(content: bytes, where: str) -> None:
    """Rejects PNGs with wrong checksums, or that Pillow would reduce to 8 bits."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 26:
        return
    depth, kind = content[24], content[25]
    if depth == 16 and kind != 0:  # 0 is gray.
        raise UserError(
            f"{where} is a 16-bit PNG with color or transparency, which cannot be read "
            f"without loss: save it as TIFF or .npy."
        )
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        name, end = content[place + 4 : place + 8], place + 8 + length
        is_critical = name[:1].isupper()  # By the PNG specification.
        check = int.from_bytes(content[end : end + 4])
        # Pillow stops after the last row, before it has verified all checksums.
        if is_critical and zlib.crc32(memoryview(content)[place + 4 : end]) != check:
            raise broken(where, content, ValueError(f"wrong checksum of {name!r}"))
        if name == b"IEND":
            return
        place = end + 4
    raise broken(where, content, ValueError("it is truncated"))
