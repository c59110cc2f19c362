"""Single images from disk, read as the data sets read them."""

import os
import pathlib

import numpy as np

from segjax.data.builders import files, sources

IMAGE_SUFFIXES = files.IMAGE_SUFFIXES


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image as a model sees it.

    Args:
        path: A png, jpg, tif, bmp or webp file; grey or colour, 8 bits or more.

    Returns:
        uint8 [H, W, 3]. Grey is repeated, transparency dropped, more than 8 bits
        stretched to 0 to 255, and what the camera says of turns is obeyed.

    Raises:
        ValueError: If the file cannot be decoded; the message names it.
    """
    path = pathlib.Path(path)
    return files.read_image(sources.Folder(path.parent), path.name)
