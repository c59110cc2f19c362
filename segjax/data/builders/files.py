"""Listing, pairing and reading the user's images."""

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from segjax.data import stored
from segjax.data.builders.sources import Tree
from segjax.errors import UserError
from segjax.files import dicom, tiff
from segjax.files import images as opener
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
        float32 [H, W, K] as stored; DICOM as `dicom.read` has it.

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
    if suffix == "dcm":
        return stored.image(dicom.read(content, where), where)
    # Cameras store rotated pictures; masks are drawn on what viewers show.
    image = opener.decode(content, where)
    if image.mode.startswith(("I", "F")):  # Gray of more than 8 bits.
        return stored.image(np.asarray(image), where)
    return opener.pixels(image if image.mode == "RGB" else image.convert("RGB"))


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
    if name is None or name.lower().endswith((".npy", ".dcm", ".tif", ".tiff")):
        return ""
    is_turned = opener.stored_size(tree.read(name), name) == tuple(wanted)
    return " (turned by its EXIF orientation)" if is_turned else ""


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
