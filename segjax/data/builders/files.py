"""Reading and checking the user's images and masks."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from segjax.data import stored
from segjax.data.builders.sources import Tree
from segjax.errors import UserError
from segjax.files import images as opener
from segjax.files import tiff
from segjax.files.images import SUFFIXES as IMAGE_SUFFIXES


def images(tree: Tree, folder: str) -> list[str]:
    """Lists the image files directly inside a folder, sorted."""
    return [n for n in tree.files(folder) if n.lower().endswith(IMAGE_SUFFIXES)]


def stem(name: str) -> str:
    """Returns the stem: `a/b/c.d.png` to `c.d`."""
    return name.rpartition("/")[2].rpartition(".")[0]


def pairs(tree: Tree, images_in: str, masks_in: str) -> list[tuple[str, str]]:
    """Pairs images and masks by stem; ValueError if one has no counterpart."""
    by_stem = [_by_stem(tree, folder) for folder in (images_in, masks_in)]
    for ours, theirs, kind, folder in (
        (by_stem[0], by_stem[1], "mask", masks_in),
        (by_stem[1], by_stem[0], "image", images_in),
    ):
        for missing in sorted(ours.keys() - theirs.keys()):
            near = _nearest(missing, theirs.keys() - ours.keys())
            hint = f" (the nearest is {theirs[near]})" if near else ""
            raise UserError(
                f"{tree.shown(ours[missing])} has no {kind}: needed {missing}.* in "
                f"{tree.shown(folder)}{hint}; add or rename it, or remove the file."
            )
    return [(by_stem[0][s], by_stem[1][s]) for s in sorted(by_stem[0])]


def _nearest(stem: str, unpaired: Iterable[str]) -> str | None:
    """Suggests a similar stem, such as `a_mask` for `a`."""
    longer = sorted(other for other in unpaired if other.startswith(stem))
    return next(iter(longer or difflib.get_close_matches(stem, unpaired, n=1)), None)


def _by_stem(tree: Tree, folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in images(tree, folder):
        other = found.setdefault(stem(name), name)
        if other != name:
            raise UserError(
                f"{tree.shown(name)} and {other} have the same stem: needed unique "
                f"stems; remove one."
            )
    if not found:
        raise UserError(
            f"{tree.shown(folder)} holds no image: needed files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}, got {_first_names(tree.files(folder))}."
        )
    return found


def _first_names(names: Sequence[str]) -> str:
    few = ", ".join(name.rpartition("/")[2] for name in names[:3])
    return f"{few}{', ...' if len(names) > 3 else ''}" if few else "nothing"


def read_image(tree: Tree, name: str) -> np.ndarray:
    """Reads an image without rescaling its values.

    Args:
        tree: Contains the file.
        name: Name of the file.

    Returns:
        For 8-bit pictures, uint8 [H, W, 3] as viewers show them: gray is repeated,
        transparency is dropped, and the EXIF orientation is applied. For all others,
        i.e. 16-bit, float and multi-channel files and .npy arrays, uint8, uint16 or
        float32 [H, W, K] as stored.

    Raises:
        ValueError: If the file is broken, too large, holds several images, or has
            another dtype.
    """
    suffix, where = name.lower().rpartition(".")[2], tree.shown(name)
    content = tree.read(name)
    if suffix == "npy":
        return stored.image(opener.load_npy(content, where), where)
    if suffix in ("tif", "tiff"):
        pixels = tiff.read(content, where)
        if pixels is not None:
            return stored.image(pixels, where)
    # Cameras store rotated pictures; masks are drawn on what viewers show.
    image = opener.decode(content, where)
    if image.mode.startswith(("I", "F")):  # Gray of more than 8 bits.
        return stored.image(np.asarray(image), where)
    return np.array(image.convert("RGB"))


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
                f"class ids (0, 1, 2, ...); convert each color to its id."
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
    if like is not None and ids.shape != like.shape[:2]:
        height, width = like.shape[:2]
        raise UserError(
            f"{tree.shown(name)} is {ids.shape[1]}x{ids.shape[0]} pixels: needed "
            f"{width}x{height}, the size of its image"
            f"{turned(tree, image_name, ids.shape)}; export it at that size."
        )
    return ids


def turned(tree: Tree, name: str | None, wanted: Sequence[int]) -> str:
    """Explains a size that differs because of an EXIF orientation.

    Args:
        tree: Contains the file.
        name: The image; None if its name is not known.
        wanted: (height, width) of its mask or annotations.

    Returns:
        " (turned by its EXIF orientation)" if the stored pixels have the wanted size,
        else nothing.
    """
    if name is None or name.lower().endswith((".npy", ".tif", ".tiff")):
        return ""
    is_turned = opener.stored_size(tree.read(name), name) == tuple(wanted)
    return " (turned by its EXIF orientation)" if is_turned else ""


def _mask_pixels(content: bytes, name: str, where: str) -> np.ndarray:
    if name.lower().endswith(".npy"):
        ids = opener.load_npy(content, where)
        # Unlike in pictures, further channels of an array are not dropped.
        return ids[..., 0] if ids.ndim == 3 and ids.shape[-1] == 1 else ids
    image = opener.decode(content, where)
    if opener.is_lossy(content, image):
        raise UserError(
            f"{where} has lossy compression ({image.format}), which changes class ids "
            f"near every border: needed a lossless file; export the mask again as PNG "
            f"(converting this file would keep the wrong ids)."
        )
    return np.asarray(image)


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
                f"{ranges(known)}; correct the mask ({fix})."
            )
    ours = np.array([known[value] for value in found.tolist()], dtype)
    return ours[np.searchsorted(found, ids)]


def check_names(names: Iterable[str], where: str) -> None:
    """Raises a ValueError for a class name that is not printable."""
    for name in names:
        if not name.isprintable() or not name.strip():
            raise UserError(
                f"{where} has the class name {name!a}: needed printable characters; "
                f"rename it (or save the file as UTF-8)."
            )


def ranges(ids: Iterable[int]) -> str:
    """Formats ids as ranges: `[0, 1, 2, 255]` to `0-2, 255`."""
    runs: list[list[int]] = []
    for value in sorted(ids):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in runs)
