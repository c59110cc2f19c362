"""Images as arguments: arrays and paths, checked before a model predicts them."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.errors import UserError
from segjax.inference.reading import read_image

ImageOrPath = np.ndarray | str | os.PathLike

_OTHER_SCALE = 4
"""A mean this many times the largest value of training is of another scale."""


def as_image(
    image: ImageOrPath,
    about: Mapping[str, Any],
    *,
    owner: str,
    max_pixels: int,
    where: str = "the array",
) -> np.ndarray:
    """Reads an image, and converts it to a model's form where that is unambiguous.

    A missing axis of one channel is added; 8-bit gray is repeated to RGB, and
    transparency is dropped, as in files. Whole numbers of other dtypes from 0 to the
    dtype's maximum are converted. Nothing is scaled.

    Args:
        image: An array, or the path of a file; see `read_image`.
        about: `image` of a model's description: `channels` and `dtype`, and where known
            `low` and `high`, the range of the training images.
        owner: The model, for messages.
        max_pixels: Maximum height times width of an image read from a file.
        where: The array, for messages.

    Returns:
        [H, W, K] of the model's dtype.

    Raises:
        ValueError: If the image does not fit, holds NaN or infinity, or has values of
            another scale than the training images, or the file cannot be read.
    """
    channels, dtype = about["channels"], np.dtype(about["dtype"])
    if isinstance(image, str | os.PathLike):
        where, path = str(image), pathlib.Path(image)
        pixels = read_image(path, channels=channels, max_pixels=max_pixels)
    else:
        pixels = np.asarray(image)
    made = _with_channels(_as_dtype(pixels, dtype), channels)
    has_shape = made.ndim == 3 and made.shape[-1] == channels and made.size > 0
    if not has_shape or made.dtype != dtype:
        raise UserError(
            f"{owner} needs images [H, W, {channels}] of dtype {dtype}, as in "
            f"training, got {list(pixels.shape)} of dtype {pixels.dtype} from "
            f"{where}. {_cure(pixels, channels, dtype)}"
        )
    if not np.isfinite(made).all():
        raise UserError(
            f"{where} holds NaN or infinity: needed finite numbers, since one such "
            f"pixel can affect the whole result; replace them."
        )
    if dtype.kind == "f":
        _check_scale(made, about, owner=owner, where=where)
    return made


def _as_dtype(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts whole numbers that were stored in a wider dtype."""
    if dtype.kind == "f":
        return pixels.astype(dtype) if pixels.dtype.kind == "f" else pixels
    # Unsigned ones have a range of their own, which may be meant.
    if pixels.dtype.kind not in "if" or not pixels.size:
        return pixels
    low, high = pixels.min(), pixels.max()
    # Floats up to 1 may be meant as a range from black to white.
    if not (low >= 0 and 1 < high <= np.iinfo(dtype).max):
        return pixels
    made = pixels.astype(dtype)
    return made if (made == pixels).all() else pixels


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    is_picture = pixels.ndim == 3 and pixels.dtype == np.uint8 and channels == 3
    if is_picture and pixels.shape[-1] == 1:
        return pixels.repeat(3, axis=-1)
    return pixels[..., :3] if is_picture and pixels.shape[-1] == 4 else pixels


def _cure(pixels: np.ndarray, channels: int, dtype: np.dtype) -> str:
    """Says what to do about an image that does not fit."""
    shape = pixels.shape
    if pixels.ndim == 4:
        return "Pass its images one by one."
    if pixels.ndim == 3 and shape[0] == channels != shape[-1]:
        return "Its channels come first: pass np.moveaxis(image, 0, -1)."
    fits = pixels.ndim == 3 and shape[-1] == channels
    if fits and pixels.dtype.kind == "f" and dtype.kind == "u":
        largest = np.iinfo(dtype).max
        return (
            f"If it ranges from 0 to 1, pass "
            f"np.round(image * {largest}).astype(np.{dtype})."
        )
    if fits and (pixels.dtype, dtype) == (np.uint16, np.uint8):
        return "If it uses all 16 bits, pass np.round(image / 257).astype(np.uint8)."
    return "Convert it as the training images were."


def _check_scale(
    pixels: np.ndarray, about: Mapping[str, Any], *, owner: str, where: str
) -> None:
    largest = max(abs(about.get("low", 0)), abs(about.get("high", 0)))
    mean = float(np.abs(pixels).mean(dtype=np.float64))
    if largest and mean > _OTHER_SCALE * largest:
        raise UserError(
            f"{where} has another scale than the training images of {owner}: its mean "
            f"is {mean:.4g}, and their values were from {about['low']:.4g} to "
            f"{about['high']:.4g}. Scale it as they were."
        )
