"""Reading image files for a model."""

import io
import mmap
import pathlib
import zipfile
from typing import Any

import numpy as np

from segjax.errors import UserError
from segjax.files import dicom, images, limits, reading

SUFFIXES = (*images.SUFFIXES, ".npz")

Page = int | str | None
"""A page of a TIFF file from 0, the name of an array in .npz, or None: the file."""

_TIFF = (".tif", ".tiff")


def pages_of(path: pathlib.Path, *, channels: int) -> list[Page]:
    """Lists the images in a file: several for stacks, else [None].

    Args:
        path: A file with one of `SUFFIXES`. Broken files are left to `read_image`.
        channels: K of the model. A TIFF stack of K gray pages is one image.
    """
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return [name.removesuffix(".npy") for name in archive.namelist()]
        if path.suffix.lower() in _TIFF and path.is_file():
            return _tiff_pages(path, channels)
    except (OSError, ValueError, zipfile.BadZipFile):
        pass
    return [None]


def _tiff_pages(path: pathlib.Path, channels: int) -> list[Page]:
    from segjax.files import tiff

    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            count = tiff.count_pages(content)
    if count < 2:
        return [None]
    try:
        with tiff.open_tiff(reading.read_bytes(path)) as stack:
            series = stack.series
            is_one = len(series) == 1 and _holds_one_image(series[0], channels)
    except UserError:
        raise
    except Exception:  # Reported when it is read.
        return [None]
    return [None] if is_one else list(range(count))


def _holds_one_image(series, channels: int) -> bool:
    """Whether the pages of a series are the channels of one image."""
    return series.ndim == 3 and (series.axes[0] in "CS" or series.shape[0] == channels)


def fit_integers(
    pixels: np.ndarray, *, channels: int, dtype: str, where: str
) -> tuple[np.ndarray, str]:
    """Converts pixels between 8 and 16 bits, by the ranges of the two dtypes.

    Networks that scale integers by their range see the same values, up to rounding to
    8 bits.

    Args:
        pixels: [H, W, *].
        channels: K of the model; gray is repeated for 3.
        dtype: The dtype of the model's images.
        where: The file, for the note.

    Returns:
        (the pixels, what was done to them; "" if nothing).
    """
    kinds, made = (str(pixels.dtype), dtype), pixels
    if channels == 3 and pixels.shape[-1] == 1:
        made = made.repeat(3, axis=-1)
    if made.shape[-1] != channels:
        return pixels, ""
    if kinds == ("uint16", "uint8"):
        made, how = np.round(made / 257).astype(np.uint8), "divided by 257"
    elif kinds == ("uint8", "uint16"):
        made, how = made.astype(np.uint16) * 257, "multiplied by 257"
    else:
        return pixels, ""
    largest = f"; its largest value is {int(pixels.max())}" if pixels.size else ""
    return made, f"{where} is {kinds[0]}, {how} to the model's {dtype}{largest}."


def read_image(
    path: pathlib.Path,
    *,
    channels: int,
    max_pixels: int = limits.PREDICT_PIXELS,
    page: Page = None,
) -> np.ndarray:
    """Reads an image as stored; 8-bit files are converted to RGB if the model needs it.

    Args:
        path: A file with one of `SUFFIXES`.
        channels: K of the model. If K is 3, 8-bit files with other channels are
            converted to RGB: gray is repeated, and transparency is dropped. Palettes
            are converted to colors. All others are read as stored.
        max_pixels: Maximum height times width.
        page: An image of the file, from `pages_of`.

    Returns:
        [H, W, *]: uint8, uint16 or float32 as stored, with EXIF orientation applied.

    Raises:
        ValueError: If the path is not a regular file, or the file cannot be decoded,
            is too large, or holds more than one image.
    """
    content, where = reading.read_bytes(path), str(path)
    if path.suffix.lower() == ".npz":
        content, where = _entry(content, where, page), f"{path} ({page})"
        pixels = images.load_npy(content, where, max_pixels=max_pixels)
    elif path.suffix.lower() == ".npy":
        pixels = images.load_npy(content, where, max_pixels=max_pixels)
    elif path.suffix.lower() == ".dcm":
        pixels = dicom.read(content, where, max_pixels=max_pixels)
    elif path.suffix.lower() in _TIFF:
        pixels = _tiff(content, where, channels, max_pixels, page)
    else:
        pixels = _read_with_pillow(content, where, max_pixels)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise UserError(
            f"{path} needs to hold one image [H, W] or [H, W, K], got "
            f"{list(pixels.shape)}. Save each image as a file."
        )
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype == np.uint8 and channels == 3 and pixels.shape[-1] in (1, 2, 4):
        gray = pixels.shape[-1] < 3
        return pixels[..., :1].repeat(3, axis=-1) if gray else pixels[..., :3]
    return pixels


def image_size(
    path: pathlib.Path,
    *,
    channels: int,
    max_pixels: int = limits.PREDICT_PIXELS,
    page: Page = None,
) -> tuple[int, int]:
    """Returns (height, width) of `read_image`'s result, from the header if possible.

    Raises:
        ValueError: Like `read_image`, for errors visible in the header.
    """
    if path.suffix.lower() in (".npy", ".npz", ".dcm", *_TIFF):
        shape = read_image(
            path, channels=channels, max_pixels=max_pixels, page=page
        ).shape
        return shape[0], shape[1]
    return images.size(reading.read_bytes(path), str(path), max_pixels=max_pixels)


def _read_with_pillow(content: bytes, where: str, max_pixels: int) -> np.ndarray:
    image = images.decode(content, where, max_pixels=max_pixels)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    return images.pixels(image)


def _entry(content: bytes, where: str, page: Page) -> bytes:
    """Reads an array of a .npz file as the content of a .npy file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            info = archive.getinfo(f"{page}.npy")
            if info.file_size > limits.ZIP_ENTRY_BYTES:
                raise UserError(f"{page} has {info.file_size:,} bytes")
            return archive.read(info)
    except Exception as error:  # Damaged archives raise exceptions of many types.
        raise images.broken(where, content, error) from error


def _tiff(
    content: bytes, where: str, channels: int, max_pixels: int, number: Page
) -> np.ndarray:
    """Reads a TIFF file or a page of it, channels last."""
    import tifffile  # Here, since it is slow to import.

    from segjax.files import tiff

    try:
        file = tiff.open_tiff(content)
        if number is None:
            series, page = file.series[0], file.pages.first
        else:
            page: Any = file.pages[int(number)]
            series = tifffile.TiffPageSeries([page])
        count = len(file.series) if number is None else 1
    except Exception as error:
        raise images.broken(where, content, error) from error
    with file:
        if number is None and page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _read_with_pillow(content, where, max_pixels)
        if count > 1:
            raise UserError(
                f"{where} needs to hold one image, got {count}. Save each image as a "
                f"file."
            )
        tiff.check_size(series, where, max_pixels)
        try:
            axes, pixels = series.axes, tiff.decode(series)
        except Exception as error:
            if "imagecodecs" in str(error):  # Pillow has some of these decoders.
                return _read_with_pillow(content, where, max_pixels)
            raise images.broken(where, content, error) from error
    if pixels.ndim == 3:
        # An unnamed axis holds channels if its length is the model's.
        unnamed_first = axes[0] in "QI" and pixels.shape[-1] != channels
        if axes[0] in "CS" or unnamed_first:
            pixels = np.moveaxis(pixels, 0, -1)
    return tiff.upright(pixels, page) if pixels.ndim in (2, 3) else pixels
