"""Reading DICOM files: one image each, in the units that its rescaling gives."""

import io
import threading
import warnings
from typing import Any

import numpy as np

from segjax import optional
from segjax.errors import UserError
from segjax.files import images, limits

# Unpacks to any size before the header can be read.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LOCK = threading.Lock()
"""Filters of warnings are those of all threads."""


def read(
    content: bytes, where: str, *, max_pixels: int = limits.MAX_PIXELS
) -> np.ndarray:
    """Reads the image of a DICOM file.

    Gray values are rescaled by the file's slope and intercept or table, which gives
    Hounsfield units for computed tomography, and not windowed: `data.clip_window` does
    that for all images alike. MONOCHROME1 is inverted, so that larger is brighter.

    Args:
        content: The file's content.
        where: Its name, for messages.
        max_pixels: Maximum height times width.

    Returns:
        float32 [H, W], or uint8 [H, W, 3] for colors.

    Raises:
        ValueError: If it is broken, has no image or several, is too large, has a
            compression that needs another package, or pydicom is not installed.
    """
    pydicom = optional.require("pydicom", extra="medical", purpose="DICOM files")
    # pydicom warns of values that break the standard, most of which do not matter here.
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read(pydicom, content, where, max_pixels)


def _read(pydicom: Any, content: bytes, where: str, max_pixels: int) -> np.ndarray:
    if _DEFLATED in content[:4096]:
        raise UserError(f"{where} is a deflated DICOM file: save it uncompressed.")
    try:
        file = pydicom.dcmread(io.BytesIO(content))
        size = int(file.Rows), int(file.Columns)
        frames = int(file.get("NumberOfFrames") or 1)
        samples, kind = int(file.SamplesPerPixel), str(file.PhotometricInterpretation)
    except Exception as error:  # Of many types, also for attributes that are missing.
        raise images.broken(where, content, error) from error
    if frames != 1:
        raise UserError(
            f"{where} has {frames} frames: needed one image per file; save each frame "
            f"as a file."
        )
    images.check_size(size, where, max_pixels)
    try:
        stored = file.pixel_array
        if samples == 3:
            return _color(stored, where)  # pydicom has converted it to RGB.
        if kind == "MONOCHROME1":
            stored = _inverted(file, stored)
        return _rescaled(file, stored).astype(np.float32)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where} cannot be decoded ({reason}): save it uncompressed, or install "
            f"what it names."
        ) from error


def _color(stored: np.ndarray, where: str) -> np.ndarray:
    if stored.dtype != np.uint8:
        raise UserError(
            f"{where} has colors of {stored.dtype}: needed 8 bits; convert it."
        )
    return stored


def _rescaled(file: Any, stored: np.ndarray) -> np.ndarray:
    if "ModalityLUTSequence" in file:
        pixels = optional.require("pydicom.pixels", extra="medical", purpose="DICOM")
        return pixels.apply_modality_lut(stored, file)
    slope, intercept = file.get("RescaleSlope"), file.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    return stored * slope + (0.0 if intercept is None else float(intercept))


def _inverted(file: Any, stored: np.ndarray) -> np.ndarray:
    """The stored values from the largest possible one downwards."""
    bits, signed = int(file.BitsStored), int(file.PixelRepresentation)
    total = -1 if signed else 2**bits - 1
    return total - stored.astype(np.int64)
