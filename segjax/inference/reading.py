"""Image files as a model takes them: the pixels that the file has, or an error."""

import pathlib

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy")

_TIFF = (".tif", ".tiff")
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
_ORIENTATION = 0x0112


def read_image(path: pathlib.Path, *, channels: int) -> np.ndarray:
    """Reads an image as stored; 8-bit files also as gray or RGB, as the model needs.

    Args:
        path: A file of one of `SUFFIXES`.
        channels: K of the model. Where K is 3, 8-bit files of another number become
            RGB: gray is repeated, and transparency dropped. Colors of a palette are
            looked up. All else is given as the file has it.

    Returns:
        [H, W, *]: uint8, uint16 or float32 as stored, turned as the camera says.

    Raises:
        ValueError: If the file cannot be decoded, or holds more than one image.
    """
    try:
        pixels = _pixels(path, channels)
    except FileNotFoundError:
        raise
    except Exception as error:  # Decoders raise whatever they meet.
        raise ValueError(_broken(path, error)) from error
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


def image_size(path: pathlib.Path, *, channels: int) -> tuple[int, int]:
    """(height, width) of what `read_image` gives, from the header where that has it.

    Raises:
        ValueError: If the file cannot be decoded.
    """
    if path.suffix.lower() in (".npy", *_TIFF):
        shape = read_image(path, channels=channels).shape
        return shape[0], shape[1]
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            width, height = image.size
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(_broken(path, error)) from error
    return (width, height) if turned else (height, width)


def _pixels(path: pathlib.Path, channels: int) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix.lower() in _TIFF:
        return _tiff(path, channels)
    _check_png_depth(path)
    return _by_pillow(path)


def _by_pillow(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("it holds several images; save each as its own file")
        turned = ImageOps.exif_transpose(image)
        if turned.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
            turned = turned.convert("RGB")
        elif turned.mode == "1":
            turned = turned.convert("L")
        return np.array(turned)


def _tiff(path: pathlib.Path, channels: int) -> np.ndarray:
    """The first series of a TIFF file, channels last."""
    import tifffile  # Slow to import, and not all need it.

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _by_pillow(path)
        try:
            axes, pixels = series.axes, series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _by_pillow(path)  # It has decoders that tifffile lacks.
    if pixels.ndim != 3:
        return pixels
    # Axes that the file does not name are channels where their number is right.
    unnamed_first = axes[0] in "QI" and pixels.shape[-1] != channels
    return np.moveaxis(pixels, 0, -1) if axes[0] in "CS" or unnamed_first else pixels


def _broken(path: pathlib.Path, error: Exception) -> str:
    reason = " ".join(str(error).partition(" <_io")[0].split())
    return f"{path} cannot be read as an image: {reason}."


def _check_png_depth(path: pathlib.Path) -> None:
    """Pillow reads PNG colors of 16 bits as 8, and says nothing."""
    with path.open("rb") as file:
        header = file.read(26)
    is_png = header[:8] == b"\x89PNG\r\n\x1a\n" and len(header) == 26
    if is_png and header[24] == 16 and header[25] != 0:
        raise ValueError(
            "it is a PNG of 16 bits with colors, which is read as 8 bits; save it as "
            ".tif or .npy"
        )
