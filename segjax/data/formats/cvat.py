"""CVAT for images 1.1: one XML file for all images."""

import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping

import numpy as np

from segjax.data.builders.sources import Tree
from segjax.data.builders.splits import SPLITS
from segjax.data.formats import polygons, xml
from segjax.data.formats.items import (
    Annotated,
    Drawn,
    Item,
    Shape,
    check_size,
    draw,
    image_files,
)
from segjax.errors import UserError
from segjax.files import limits

_FILE = "annotations.xml"
_DRAWN = ("polygon", "box", "ellipse", "mask")
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")


def cvat(tree: Tree) -> Annotated:
    """Reads an export "CVAT for images 1.1".

        source/annotations.xml   source/images/a.jpg

    The classes are background and the labels of the task, in their order, else of all
    shapes in alphabetical order. Shapes are drawn by their `z_order`, later ones over
    earlier ones; those with the same `group_id` are one object. Polygons, boxes,
    ellipses and masks are drawn; all others are left out.

    Args:
        tree: The files.

    Raises:
        ValueError: If the file is malformed, or an image is missing.
    """
    if _FILE not in tree.files(""):
        raise UserError(
            f"{tree.shown('')} has no {_FILE}: needed the export CVAT for images 1.1, "
            f"unpacked, with images/."
        )
    where = tree.shown(_FILE)
    root = xml.parse(tree.read(_FILE, max_bytes=limits.JSON_BYTES), where)
    found = root.findall("image")
    if not found:
        raise UserError(
            f"{where} has no <image>: needed the export CVAT for images 1.1 (that for "
            f"video has tracks); export it again."
        )
    of_shapes = {
        s.get("label", "") for image in found for s in image if s.tag in _DRAWN
    }
    classes = _classes(root, of_shapes)
    ids = {name: i for i, name in enumerate(classes)}
    there = _images(tree)
    items = []
    for element in found:
        name = xml.attribute(element, "name", where)
        if name not in there:
            raise UserError(
                f"{where} lists the image {name[:80]!a}: needed it in images/; export "
                f"it with images."
            )
        split = SPLITS.get(element.get("subset", "").lower(), "")
        make = functools.partial(_draw, f"{where}: {name}", element, ids)
        items.append(Item(name.rpartition(".")[0], there[name], split, make))
    others = sum(shape.tag in _WITHOUT_AREA for image in found for shape in image)
    notes = (f"lines, points and tags are left out: {others}.",) if others else ()
    return Annotated(tree, classes, _in_splits(items), notes)


def _in_splits(items: list[Item]) -> tuple[Item, ...]:
    """Returns the items, without splits unless all have one and one is train."""
    splits = {item.split for item in items}
    if "" in splits or "train" not in splits:
        items = [Item(item.name, item.image, "", item.draw) for item in items]
    return tuple(items)


def _classes(root: ElementTree.Element, of_shapes: set[str]) -> tuple[str, ...]:
    names = [e.text or "" for e in root.iterfind("./meta//labels/label/name")]
    listed = [name for name in dict.fromkeys(names) if name != "background"]
    more = sorted(of_shapes - set(listed) - {"background"})
    return ("background", *listed, *more)


def _images(tree: Tree) -> dict[str, str]:
    """Returns the files of images by their names in the XML file."""
    found = {}
    for file in image_files(tree, "").values():
        found[file] = file
        found.setdefault(file.removeprefix("images/"), file)
    return found


def _draw(
    where: str,
    element: ElementTree.Element,
    ids: Mapping[str, int],
    size: tuple[int, int],
) -> Drawn:
    height, width = (
        xml.integer(xml.attribute(element, name, where), where)
        for name in ("height", "width")
    )
    check_size(size, (height, width), where, "the file")
    ordered = sorted(
        (shape for shape in element if shape.tag in _DRAWN),
        key=lambda shape: xml.numbers(shape.get("z_order", "0"), where)[0],
    )
    shapes = []
    for number, shape in enumerate(ordered, start=1):
        what = f"{where}: {shape.tag} {number}"
        label = ids[xml.attribute(shape, "label", what)]
        filling = _FILLINGS[shape.tag](shape, what, size)
        shapes.append(Shape(label, filling, shape.get("group_id")))
    return draw(shapes, size, num_classes=len(ids), by_area=False)


Filling = Callable[[tuple[int, int]], np.ndarray]


def _polygon(shape: ElementTree.Element, what: str, size: tuple[int, int]) -> Filling:
    flat = xml.numbers(xml.attribute(shape, "points", what), what, (",", ";"))
    points = [flat[i : i + 2] for i in range(0, len(flat), 2)]
    return functools.partial(polygons.fill, polygons.checked(points, what, size))


def _box(shape: ElementTree.Element, what: str, size: tuple[int, int]) -> Filling:
    x0, y0, x1, y1 = _four(shape, ("xtl", "ytl", "xbr", "ybr"), what)
    points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    angle = np.radians(_four(shape, ("rotation",), what, default="0")[0])
    # CVAT turns boxes about their center, clockwise.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = points.mean(axis=0)
    corners = (points - center) @ turn.T + center
    return functools.partial(
        polygons.fill, polygons.checked(corners.tolist(), what, size)
    )


def _ellipse(shape: ElementTree.Element, what: str, size: tuple[int, int]) -> Filling:
    del size
    x, y, rx, ry = _four(shape, ("cx", "cy", "rx", "ry"), what)
    if min(rx, ry) <= 0:
        raise UserError(f"{what} has the radii {rx:g} and {ry:g}: needed more than 0.")
    return functools.partial(polygons.fill_ellipse, (x, y), (rx, ry))


def _mask(shape: ElementTree.Element, what: str, size: tuple[int, int]) -> Filling:
    """Decodes a mask: row by row in its box, background first."""
    x, y, width, height = (
        xml.integer(xml.attribute(shape, name, what), what)
        for name in ("left", "top", "width", "height")
    )
    counts = xml.numbers(xml.attribute(shape, "rle", what), what)
    whole_numbers = all(count >= 0 and count == int(count) for count in counts)
    inside = x + width <= size[1] and y + height <= size[0]
    if not whole_numbers or sum(counts) != width * height or not inside:
        raise UserError(
            f"{what} has run lengths that add up to {sum(counts):g} for {width}x"
            f"{height} pixels at ({x}, {y}): needed {width * height}, inside its image "
            f"of {size[1]}x{size[0]}; export it again."
        )
    values = np.arange(len(counts)) % 2 == 1
    runs = np.repeat(values, np.array(counts, np.int64)).reshape(height, width)

    def paste(size: tuple[int, int]) -> np.ndarray:
        whole = np.zeros(size, bool)
        whole[y : y + height, x : x + width] = runs
        return whole

    return paste


def _four(
    shape: ElementTree.Element,
    names: tuple[str, ...],
    what: str,
    default: str | None = None,
) -> list[float]:
    """Returns attributes that are finite numbers."""
    texts = [shape.get(n, default) or xml.attribute(shape, n, what) for n in names]
    found = xml.numbers(" ".join(texts), what)
    if len(found) != len(names) or not np.isfinite(found).all():
        raise UserError(
            f"{what} has {', '.join(texts)[:60]}: needed {len(names)} numbers."
        )
    return found


_FILLINGS = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}
