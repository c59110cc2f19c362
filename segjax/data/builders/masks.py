"""Reading the user's masks: class ids, or colors."""

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image

from segjax.data.builders import files
from segjax.data.builders.sources import Tree
from segjax.errors import UserError
from segjax.files import images as opener


def may_exceed_8_bits(tree: Tree, name: str) -> bool:
    """Whether a mask may hold ids above 255, judged by its header."""
    if name.lower().endswith(".npy"):
        return True
    try:
        return opener.exceeds_8_bits(tree.read(name), name)
    except ValueError:  # Broken: reported when it is read.
        return False


def read_ids(
    tree: Tree,
    name: str,
    like: np.ndarray | None = None,
    *,
    image_name: str | None = None,
) -> np.ndarray:
    """Reads a mask of class ids as integers [H, W], with EXIF orientation applied.

    Args:
        tree: Contains the file.
        name: A single-channel file (gray, palette, or color with equal channels), or
            integers [H, W] as .npy.
        like: The image, whose height and width the mask must have; None for any size.
        image_name: Name of the image's file, for messages.

    Raises:
        ValueError: If it is broken, has lossy compression, several channels or another
            size.
    """
    ids = _mask_pixels(tree.read(name), name, tree.shown(name))
    if ids.dtype == bool:
        ids = ids.astype(np.uint8)
    if ids.ndim == 3 and not name.lower().endswith(".npy"):
        color = ids[..., :3] if ids.shape[-1] > 2 else ids[..., :1]
        if (color != color[..., :1]).any():
            raise UserError(
                f"{tree.shown(name)} is a color image: needed one channel that holds "
                f"class ids (0, 1, 2, ...); convert each color to its id, or name the "
                f"colors in classes.csv (r,g,b,name) without classes.txt and ids."
            )
        ids = color[..., 0]
    if ids.ndim != 2:
        raise UserError(
            f"{tree.shown(name)} has the shape {list(ids.shape)}: needed [H, W] class "
            f"ids; save one map per file."
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(
            f"{tree.shown(name)} holds {ids.dtype} numbers: needed whole class ids; "
            f"save it as an 8-bit PNG."
        )
    _check_size(tree, name, ids.shape, like, image_name)
    return ids


def _check_size(
    tree: Tree,
    name: str,
    size: Sequence[int],
    like: np.ndarray | None,
    image_name: str | None,
) -> None:
    if like is not None and tuple(size) != like.shape[:2]:
        height, width = like.shape[:2]
        raise UserError(
            f"{tree.shown(name)} is {size[1]}x{size[0]} pixels: needed "
            f"{width}x{height}, the size of its image"
            f"{files.turned(tree, image_name, size)}; export it at that size."
        )


def is_color(tree: Tree, name: str) -> bool:
    """Whether a mask is a picture whose channels differ; broken ones are not."""
    if name.lower().endswith(".npy"):
        return False
    try:
        content = tree.read(name)
        if opener.mode(content, name) not in ("RGB", "RGBA", "CMYK", "YCbCr"):
            return False
        color = np.asarray(opener.decode(content, name).convert("RGB"))
    except ValueError:  # Reported when it is read.
        return False
    return bool((color != color[..., :1]).any())


def read_colors(
    tree: Tree, name: str, like: np.ndarray | None = None, image_name: str | None = None
) -> np.ndarray:
    """Reads a mask in color as numbers 0xRRGGBB, int32 [H, W]; transparency is dropped.

    Args:
        tree: Contains the file.
        name: A picture of 8 bits a channel, or uint8 [H, W, 3] as .npy.
        like: The image, whose height and width the mask must have; None for any size.
        image_name: Name of the image's file, for messages.

    Raises:
        ValueError: If it is broken, has lossy compression, another size, or more bits.
    """
    where, content = tree.shown(name), tree.read(name)
    if name.lower().endswith(".npy"):
        pixels = opener.load_npy(content, where)
    else:
        image = _lossless(content, where)
        is_deep = image.mode.startswith(("I", "F"))
        pixels = np.asarray(image if is_deep else image.convert("RGB"))
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"{where} holds {pixels.dtype} {list(pixels.shape)}: needed three channels "
            f"of 8 bits, whose colors are classes; save it as an RGB PNG."
        )
    _check_size(tree, name, pixels.shape[:2], like, image_name)
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def palette(tree: Tree, name: str) -> tuple[int, ...] | None:
    """Returns the palette of a PNG or BMP as colors 0xRRGGBB; None if it has none."""
    if not name.lower().endswith((".png", ".bmp")):
        return None
    return opener.palette(tree.read(name), tree.shown(name))


def _mask_pixels(content: bytes, name: str, where: str) -> np.ndarray:
    if name.lower().endswith(".npy"):
        ids = opener.load_npy(content, where)
        # Unlike in pictures, further channels of an array are not dropped.
        return ids[..., 0] if ids.ndim == 3 and ids.shape[-1] == 1 else ids
    return np.asarray(_lossless(content, where))


def _lossless(content: bytes, where: str) -> PIL.Image.Image:
    image = opener.decode(content, where)
    if opener.is_lossy(content, image):
        raise UserError(
            f"{where} has lossy compression ({image.format}), which changes class ids "
            f"near every border: needed a lossless file; export the mask again as PNG "
            f"(converting this file would keep the wrong ids)."
        )
    return image


def to_labels(
    tree: Tree,
    name: str,
    ids: np.ndarray,
    known: Mapping[int, int],
    *,
    fix: str,
    dtype: type[np.uint8] | type[np.uint16] = np.uint8,
) -> np.ndarray:
    """Maps the ids of a file to class ids, uint8 or uint16 [H, W].

    Args:
        tree: Contains the file.
        name: Name of the file.
        ids: [H, W] integers from the file.
        known: Maps each allowed id to its class id.
        fix: What to do about another id, for the message.
        dtype: Dtype of the result.
    """
    found = np.unique(ids)
    for value in found.tolist():
        if value not in known:
            raise UserError(
                f"{tree.shown(name)} holds id {value}: needed one of "
                f"{files.ranges(known)}; correct the mask ({fix})."
            )
    ours = np.array([known[value] for value in found.tolist()], dtype)
    return ours[np.searchsorted(found, ids)]
