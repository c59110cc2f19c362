"""What a reader of a format returns: images, and how their masks are drawn."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from segjax import ops
from segjax.data import stored
from segjax.data.builders import files
from segjax.data.builders.sources import Tree
from segjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The annotations of an image, as pixels.

    Attributes:
        label: uint8 or uint16 [H, W], class ids; the dtype's largest value is ignored.
        objects: Class id, mask bool [H, W] and whether it is a crowd, for each object;
            None for formats without objects.
    """

    label: np.ndarray
    objects: Sequence[tuple[int, np.ndarray, bool]] | None


@dataclasses.dataclass(frozen=True)
class Item:
    """An annotated image.

    Attributes:
        name: Where it is written, without suffix: its folder and stem, unique in its
            split.
        image: The image's file in the tree.
        split: "train", "validation" or "test"; empty if the format has no splits.
        draw: From (height, width) to its annotations.
        pixels: The image [H, W, K], if it is not the file but made from it.
    """

    name: str
    image: str
    split: str
    draw: Callable[[tuple[int, int]], Drawn]
    pixels: Callable[[], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Annotated:
    """An annotated set of images.

    Attributes:
        tree: The files.
        classes: Class names by id.
        items: The images.
        notes: What was left out, one line each.
    """

    tree: Tree
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Shape:
    """A region in an image.

    Attributes:
        class_id: From 0; None for ignored pixels.
        fill: From (height, width) to a mask, bool [H, W].
        group: Shapes of one group and class are one object.
    """

    class_id: int | None
    fill: Callable[[tuple[int, int]], np.ndarray]
    group: str | None = None


def draw(
    shapes: Sequence[Shape], size: tuple[int, int], *, num_classes: int, by_area: bool
) -> Drawn:
    """Draws shapes over background, class 0.

    Args:
        shapes: In the order of the file.
        size: (height, width).
        num_classes: C, with background.
        by_area: Whether smaller shapes are drawn over larger ones, as for formats
            without an order; else later ones over earlier ones.
    """
    masks = [shape.fill(size) for shape in shapes]
    order = list(range(len(shapes)))
    if by_area:
        order.sort(key=lambda i: -int(masks[i].sum()))
    label = np.zeros(size, stored.label_dtype(num_classes))
    ignored = ops.ignore_index(label.dtype)
    for i in order:
        found = shapes[i].class_id
        label[masks[i]] = ignored if found is None else found
    return Drawn(label, list(_objects(shapes, masks)))


def _objects(
    shapes: Sequence[Shape], masks: Sequence[np.ndarray]
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yields objects with at least one pixel, without background."""
    merged: dict[object, tuple[int, np.ndarray]] = {}
    for number, (shape, mask) in enumerate(zip(shapes, masks, strict=True)):
        if not shape.class_id:
            continue
        key = (shape.class_id, shape.group) if shape.group is not None else number
        _, before = merged.get(key, (0, np.zeros_like(mask)))
        merged[key] = shape.class_id, before | mask
    for found, mask in merged.values():
        if mask.any():
            yield found, mask, False


def check_size(
    size: tuple[int, int], declared: tuple[int, int], where: str, image: str
) -> None:
    """Raises a ValueError if an image has another size than its annotations say."""
    if size != declared:
        raise UserError(
            f"{where} declares {declared[1]}x{declared[0]} pixels, {image} has "
            f"{size[1]}x{size[0]}: needed the same size; export the annotations again."
        )


def image_files(tree: Tree, folder: str) -> dict[str, str]:
    """Returns the image files in and below a folder, by name without suffix.

    Raises:
        ValueError: If two differ in their suffix only.
    """
    found: dict[str, str] = {}
    for name in _below(tree, folder):
        key = name.rpartition(".")[0]
        other = found.setdefault(key, name)
        if other != name:
            raise UserError(
                f"{tree.shown(name)} and {other} have the same stem: needed unique "
                f"stems; remove one."
            )
    return found


def _below(tree: Tree, folder: str, depth: int = 0) -> Iterator[str]:
    if depth > 16:
        raise UserError(f"{tree.shown(folder)} is too deep: needed at most 16 folders.")
    yield from files.images(tree, folder)
    for inner in tree.folders(folder):
        yield from _below(tree, inner, depth + 1)


def files_below(tree: Tree, folder: str, suffix: str, depth: int = 0) -> list[str]:
    """Lists the files with a suffix in and below a folder, sorted by folder."""
    if depth > 16:
        raise UserError(f"{tree.shown(folder)} is too deep: needed at most 16 folders.")
    found = [name for name in tree.files(folder) if name.lower().endswith(suffix)]
    for inner in tree.folders(folder):
        found += files_below(tree, inner, suffix, depth + 1)
    return found
