"""Pascal VOC's segmentation: palette PNGs, and lists of names for splits."""

from collections.abc import Mapping

import numpy as np

from segjax.data import stored
from segjax.data.builders import label_readers, masks
from segjax.data.builders.sources import Tree
from segjax.data.builders.splits import SPLITS
from segjax.data.formats.items import Annotated, Drawn, Item, image_files
from segjax.data.formats.masks_of_ids import IdMask
from segjax.errors import UserError
from segjax.files import limits, reading

CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable "
    "dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
"""Of VOC 2012, in the order of their ids."""

_NEEDS = "the folders JPEGImages, SegmentationClass and ImageSets/Segmentation"
_LABEL_MAP = "labelmap.txt"


def pascal_voc(tree: Tree) -> Annotated:
    """Reads Pascal VOC, or an export of another tool in its layout.

        source/JPEGImages/a.jpg   source/SegmentationClass/a.png
        source/SegmentationObject/a.png   source/ImageSets/Segmentation/train.txt

    The indices of masks are the classes of VOC, 255 is ignored. With labelmap.txt, as
    CVAT writes it, their colors are its labels, in its order, and other colors are
    refused. Splits are train.txt, val.txt and test.txt; images in none of these lists
    are left out; without lists, there are no splits.

    Args:
        tree: The files; VOCdevkit/VOC2012 may be around them.

    Raises:
        ValueError: If a folder, an image or a mask is missing.
    """
    root = _root(tree)
    table = _label_map(tree, root)
    images = image_files(tree, f"{root}JPEGImages")
    found = image_files(tree, f"{root}SegmentationClass")
    objects = image_files(tree, f"{root}SegmentationObject")
    items = []
    for name, split in _names(tree, root, found).items():
        image = images.get(f"{root}JPEGImages/{name}")
        mask = found.get(f"{root}SegmentationClass/{name}")
        if image is None or mask is None:
            kind = "image in JPEGImages" if image is None else "mask"
            raise UserError(
                f"{tree.shown(root)}: {name[:80]!a} has no {kind}: needed both for all "
                f"names; add it, or remove the name from its list."
            )
        numbers = objects.get(f"{root}SegmentationObject/{name}")
        if table:
            make = _ColorMask(tree, mask, image, table[1], numbers)
        else:
            known = {i: i for i in range(len(CLASSES))} | {255: 255}
            fix = f"or add {_LABEL_MAP} for other classes than those of VOC"
            make = IdMask(tree, mask, image, known, fix, numbers)
        items.append(Item(name, image, split, make))
    left = len(found) - len(items)
    notes = (f"masks that are in no list are left out: {left}.",) if left else ()
    return Annotated(tree, table[0] if table else CLASSES, tuple(items), notes)


def _root(tree: Tree) -> str:
    """Returns the folder that holds SegmentationClass, with a slash."""
    for place in _candidates(tree):
        if f"{place}SegmentationClass" in tree.folders(place.rstrip("/")):
            return place
    raise UserError(f"{tree.shown('')} has no SegmentationClass: needed {_NEEDS}.")


def _candidates(tree: Tree) -> list[str]:
    outer = tree.folders("")
    return [
        "",
        *(f"{name}/" for name in outer),
        *(f"{inner}/" for name in outer for inner in tree.folders(name)),
    ]


def _names(tree: Tree, root: str, found: Mapping[str, str]) -> dict[str, str]:
    """Returns the split of each listed name."""
    names: dict[str, str] = {}
    for path in tree.files(f"{root}ImageSets/Segmentation"):
        split = SPLITS.get(path.rpartition("/")[2].removesuffix(".txt").lower())
        content = tree.read(path, max_bytes=limits.TEXT_BYTES)
        lines = reading.decode_text(content, tree.shown(path)).split()
        for name in lines if split else ():
            other = names.setdefault(name, split or "")
            if other != split:
                raise UserError(
                    f"{tree.shown(path)} lists {name[:80]!a}, which is in {other} too: "
                    f"needed each image in one list; remove it from one."
                )
    if not names or "train" not in names.values():
        prefix = f"{root}SegmentationClass/"
        return {key.removeprefix(prefix): "" for key in found}
    return names


def _label_map(tree: Tree, root: str) -> tuple[tuple[str, ...], dict[int, int]] | None:
    """Reads `label:r,g,b:parts:actions` lines: classes, and class ids by color."""
    path = f"{root}{_LABEL_MAP}"
    if path not in tree.files(root.rstrip("/")):
        return None
    where = tree.shown(path)
    content = tree.read(path, max_bytes=limits.TEXT_BYTES)
    names: list[str] = []
    ids: dict[int, int] = {}
    for line in reading.decode_text(content, where).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        parts = rest.split(":")[0].split(",")
        fits = len(parts) == 3 and all(p.isdigit() and int(p) < 256 for p in parts)
        if not fits or name in names:
            raise UserError(
                f"{where} has the line {line[:80]!a}: needed label:r,g,b::, each label "
                f"once; correct it."
            )
        red, green, blue = map(int, parts)
        ids[red << 16 | green << 8 | blue] = len(names)
        names.append(name)
    order = sorted(names, key=lambda name: name != "background")
    return tuple(order), {c: order.index(names[i]) for c, i in ids.items()}


class _ColorMask:
    """Reads a mask whose colors are those of labelmap.txt."""

    def __init__(
        self,
        tree: Tree,
        name: str,
        image: str,
        ids: Mapping[int, int],
        instances: str | None,
    ):
        """Keeps the files; `ids` are class ids by color."""
        self._tree, self._name, self._image = tree, name, image
        self._ids, self._instances = ids, instances

    def __call__(self, size: tuple[int, int]) -> Drawn:
        """Draws the mask; ValueError for another size or an unknown color."""
        like = np.broadcast_to(np.uint8(0), size)
        label = self._labels(like)
        if self._instances is None:
            return Drawn(label, None)
        # Objects have colors of their own, so their numbers are those of colors.
        colors = masks.read_colors(self._tree, self._instances, like, self._image)
        objects = []
        for color in np.unique(colors).tolist():
            inside = colors == color
            classes = np.bincount(label[inside], minlength=1)
            if color and classes[1:].any():
                objects.append((int(classes[1:].argmax()) + 1, inside, False))
        return Drawn(label, objects)

    def _labels(self, like: np.ndarray) -> np.ndarray:
        pixels = masks.read_colors(self._tree, self._name, like, self._image)
        dtype = stored.label_dtype(len(self._ids))
        return label_readers.by_color(self._tree, self._name, pixels, self._ids, dtype)
