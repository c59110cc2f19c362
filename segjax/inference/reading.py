"""Reading image files for a model."""

import pathlib

import numpy as np

from segjax.errors import UserError
from segjax.files import images, limits, reading

SUFFIXES = images.SUFFIXES

_TIFF = (".tif", ".tiff")


def read_image(
    path: pathlib.Path, *, channels: int, max_pixels: int = limits.PREDICT_PIXELS
) -> np.ndarray:
    """Reads an image as stored; 8-bit files are converted to RGB if the model needs it.

    Args:
        path: A file with one of `SUFFIXES`.
        channels: K of the model. If K is 3, 8-bit files with other channels are
            converted to RGB: gray is repeated, and transparency is dropped. Palettes
            are converted to colors. All others are read as stored.
        max_pixels: Maximum height times width.

    Returns:
        [H, W, *]: uint8, uint16 or float32 as stored, with EXIF orientation applied.

    Raises:
        ValueError: If the path is not a regular file, or the file cannot be decoded,
            is too large, or holds more than one image.
    """
    content, where = reading.read_bytes(path), str(path)
    if path.suffix.lower() == ".npy":
        pixels = images.load_npy(content, where, max_pixels=max_pixels)
    elif path.suffix.lower() in _TIFF:
        pixels = _tiff(content, where, channels, max_pixels)
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
    path: pathlib.Path, *, channels: int, max_pixels: int = limits.PREDICT_PIXELS
) -> tuple[int, int]:
    """Returns (height, width) of `read_image`'s result, from the header if possible.

    Raises:
        ValueError: Like `read_image`, for errors visible in the header.
    """
    if path.suffix.lower() in (".npy", *_TIFF):
        shape = read_image(path, channels=channels, max_pixels=max_pixels).shape
        return shape[0], shape[1]
    return images.size(reading.read_bytes(path), str(path), max_pixels=max_pixels)


def _read_with_pillow(content: bytes, where: str, max_pixels: int) -> np.ndarray:
    image = images.decode(content, where, max_pixels=max_pixels)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    return np.array(image)


def _tiff(content: bytes, where: str, channels: int, max_pixels: int) -> np.ndarray:
    """Reads a TIFF file, channels last."""
    import tifffile  # Here, since it is slow to import.

    from segjax.files import tiff

    try:
        file = tiff.open_tiff(content)
        series, page = file.series[0], file.pages.first
        count = len(file.series)
    except Exception as error:
        raise images.broken(where, content, error) from error
    with file:
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
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
