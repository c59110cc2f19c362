"""Reading a single image file."""

import os
import pathlib

import numpy as np

from segjax.data.builders import files, sources

IMAGE_SUFFIXES = files.IMAGE_SUFFIXES


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image without rescaling its values, as `data.folder` does.

    Args:
        path: A png, jpg, tif, bmp, gif, webp, npy or dcm file.

    Returns:
        For 8-bit pictures, uint8 [H, W, 3] as viewers show them: gray is repeated,
        transparency is dropped, and the EXIF orientation is applied. For 16-bit, float
        and multi-channel files and for .npy arrays, uint8, uint16 or float32 [H, W, K]
        as stored.

    Raises:
        ValueError: If the file cannot be decoded, holds several images, or holds
            other dtypes, NaN or infinity; the message names it.
    """
    path = pathlib.Path(path)
    return files.read_image(sources.Folder(path.parent), path.name)
