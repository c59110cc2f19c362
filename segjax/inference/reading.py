"""Image files as a model takes them: the pixels that the file has, or an error."""

import pathlib

import numpy as np

from segjax.files import images, limits, reading

SUFFIXES = images.SUFFIXES

_TIFF = (".tif", ".tiff")


def read_image(
    path: pathlib.Path, *, channels: int, max_pixels: int = limits.PREDICT_PIXELS
) -> np.ndarray:
    """Reads an image as stored; 8-bit files also as gray or RGB, as the model needs.

    Args:
        path: A file of one of `SUFFIXES`.
        channels: K of the model. Where K is 3, 8-bit files of another number become
            RGB: gray is repeated, and transparency dropped. Colors of a palette are
            looked up. All else is given as the file has it.
        max_pixels: Height times width that the image may have.

    Returns:
        [H, W, *]: uint8, uint16 or float32 as stored, turned as the camera says.

    Raises:
        ValueError: If the file is no regular file, cannot be decoded, is too large, or
            holds more than one image.
    """
    content, where = reading.read_bytes(path), str(path)
    if path.suffix.lower() == ".npy":
        pixels = images.load_npy(content, where, max_pixels=max_pixels)
    elif path.suffix.lower() in _TIFF:
        pixels = _tiff(content, where, channels, max_pixels)
    else:
        pixels = _by_pillow(content, where, max_pixels)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(
            f"{path} needs to hold one image [H, W] or [H, W, K], got "
            f"{list(pixels.shape)}. Save each image as its own file."
        )
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype == np.uint8 and channels == 3 and pixels.shape[-1] in (1, 2, 4):
        gray = pixels.shape[-1] < 3
        return pixels[..., :1].repeat(3, axis=-1) if gray else pixels[..., :3]
    return pixels


def image_size(
    path: pathlib.Path, *, channels: int, max_pixels: int = limits.PREDICT_PIXELS
) -> tuple[int, int]:
    """(height, width) of what `read_image` gives, from the header where that has it.

    Raises:
        ValueError: As `read_image`, as far as a header tells.
    """
    if path.suffix.lower() in (".npy", *_TIFF):
        shape = read_image(path, channels=channels, max_pixels=max_pixels).shape
        return shape[0], shape[1]
    return images.size(reading.read_bytes(path), str(path), max_pixels=max_pixels)


def _by_pillow(content: bytes, where: str, max_pixels: int) -> np.ndarray:
    image = images.decode(content, where, max_pixels=max_pixels)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    return np.array(image)


def _tiff(content: bytes, where: str, channels: int, max_pixels: int) -> np.ndarray:
    """The image of a TIFF file, channels last."""
    import tifffile  # Slow to import, and not all need it.

    from segjax.files import tiff

    try:
        file = tiff.opened(content)
        series, page = file.series[0], file.pages.first
        count = len(file.series)
    except Exception as error:
        raise images.broken(where, content, error) from error
    with file:
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _by_pillow(content, where, max_pixels)
        if count > 1:
            raise ValueError(
                f"{where} needs to hold one image, got {count}. Save each image as its "
                f"own file."
            )
        tiff.check_size(series, where, max_pixels)
        try:
            axes, pixels = series.axes, tiff.decoded(series)
        except Exception as error:
            if "imagecodecs" in str(error):  # Pillow has decoders that it lacks.
                return _by_pillow(content, where, max_pixels)
            raise images.broken(where, content, error) from error
    if pixels.ndim == 3:
        # Axes that the file does not name are channels where their number is right.
        unnamed_first = axes[0] in "QI" and pixels.shape[-1] != channels
        if axes[0] in "CS" or unnamed_first:
            pixels = np.moveaxis(pixels, 0, -1)
    return tiff.upright(pixels, page) if pixels.ndim in (2, 3) else pixels
