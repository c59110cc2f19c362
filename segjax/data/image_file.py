"""Single images from disk, read as the data sets read them."""

import os
import pathlib

import numpy as np

from segjax.data.builders import files, sources

IMAGE_SUFFIXES = files.IMAGE_SUFFIXES


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image without changing its numbers, as `data.folder` does.

    Args:
        path: A png, jpg, tif, bmp, webp or npy file.

    Returns:
        uint8 [H, W, 3] of 8-bit pictures, as viewers show them: gray is repeated,
        transparency dropped, and what the camera says of turns is obeyed. Of 16-bit,
        float and multi-channel files, and of .npy arrays: uint8, uint16 or float32
        [H, W, K] as stored.

    Raises:
        ValueError: If the file cannot be decoded, holds several images, or holds
            numbers of other dtypes, NaN or infinity; the message names it.
    """
    path = pathlib.Path(path)
    return files.read_image(sources.Folder(path.parent), path.name)
