"""LabelMe's JSON: one file of shapes beside each image."""

import base64
import functools
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.builders import files
from segjax.data.builders.sources import Tree
from segjax.data.formats import polygons
from segjax.data.formats.items import (
    Annotated,
    Drawn,
    Item,
    Shape,
    check_size,
    draw,
    files_below,
    image_files,
)
from segjax.errors import UserError
from segjax.files import images, limits, reading

_BACKGROUND, _IGNORED = "_background_", "__ignore__"
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_NEEDS = "LabelMe's JSON files beside their images"


def labelme(tree: Tree) -> Annotated:
    """Reads images with LabelMe's annotations.

        source/a.jpg   source/a.json   source/labels.txt (optional)

    The classes are those of labels.txt, else the labels of all shapes in alphabetical
    order after background. The labels `_background_` and `__ignore__` are background
    and ignored pixels. Later shapes are drawn over earlier ones; shapes with the same
    group are one object. Polygons, rectangles, circles and masks are drawn, lines and
    points are left out.

    Args:
        tree: The files.

    Raises:
        ValueError: If a file is malformed, or its image is missing.
    """
    found = {name: _read(tree, name) for name in files_below(tree, "", ".json")}
    if not found:
        raise UserError(f"{tree.shown('')} has no JSON file: needed {_NEEDS}.")
    labels = {s["label"] for content in found.values() for s in content["shapes"]}
    classes = _classes(tree, labels)
    ids = {name: i for i, name in enumerate(classes)}
    ids |= {_BACKGROUND: 0, _IGNORED: None}
    there = image_files(tree, "")
    left_out = sum(
        shape["shape_type"] in _WITHOUT_AREA
        for content in found.values()
        for shape in content["shapes"]
    )
    items = []
    for name, content in found.items():
        image = _image_of(tree, name, content, there)
        make = functools.partial(_draw, tree.shown(name), image, content, ids)
        items.append(Item(image.rpartition(".")[0], image, "", make))
    notes = (f"lines and points are left out: {left_out}.",) if left_out else ()
    return Annotated(tree, classes, tuple(items), notes)


def _read(tree: Tree, name: str) -> dict[str, Any]:
    where = tree.shown(name)
    content = reading.parse_json(
        tree.read(name, max_bytes=limits.JSON_BYTES),
        where,
        need=_NEEDS,
        fix="save it again in LabelMe",
    )
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(map(_is_shape, shapes)):
        raise UserError(
            f"{where} has no list of shapes with label and points: needed {_NEEDS}; "
            f"save it again in LabelMe, or remove it."
        )
    shapes = [{"shape_type": "polygon", **shape} for shape in shapes]
    return content | {"shapes": shapes}


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, dict)
        and isinstance(shape.get("label"), str)
        and isinstance(shape.get("points"), list)
    )


def _classes(tree: Tree, labels: set[str]) -> tuple[str, ...]:
    special = {_BACKGROUND, _IGNORED}
    if "labels.txt" not in tree.files(""):
        return ("background", *sorted(labels - special - {"background"}))
    where = tree.shown("labels.txt")
    content = tree.read("labels.txt", max_bytes=limits.TEXT_BYTES)
    lines = [x.strip() for x in reading.decode_text(content, where).splitlines()]
    names = [x for x in lines if x and x not in {*special, "background"}]
    unknown = sorted(labels - {*names, *special, "background"})
    if unknown:
        raise UserError(
            f"{where} does not list the label {unknown[0]!a}: needed all labels of the "
            f"shapes; add it, or correct the shapes."
        )
    return ("background", *names)


def _image_of(
    tree: Tree, name: str, content: Mapping[str, Any], there: Mapping[str, str]
) -> str:
    """Finds the image of a JSON file: by imagePath, else by its own name."""
    folder, path = name.rpartition("/")[0], str(content.get("imagePath") or "")
    path = path.replace("\\", "/")
    base = path.rpartition("/")[2]
    near = posixpath.normpath(posixpath.join(folder, path))
    options = (near, posixpath.join(folder, base), there.get(name.rpartition(".")[0]))
    known = set(there.values())
    image = next((option for option in options if option in known), None)
    if image is None:
        raise UserError(
            f"{tree.shown(name)} has no image {base or files.stem(name)!a}: needed it "
            f"beside the JSON file; add it."
        )
    return image


def _draw(
    where: str,
    image: str,
    content: Mapping[str, Any],
    ids: Mapping[str, int | None],
    size: tuple[int, int],
) -> Drawn:
    declared = content.get("imageHeight"), content.get("imageWidth")
    if isinstance(declared[0], int) and isinstance(declared[1], int):
        check_size(size, (declared[0], declared[1]), where, image)
    shapes = []
    for number, shape in enumerate(content["shapes"], start=1):
        if shape["shape_type"] in _WITHOUT_AREA:
            continue
        group = shape.get("group_id")
        what = f"{where}: shape {number} ({shape['label'][:40]!a})"
        shapes.append(
            Shape(
                class_id=ids[shape["label"]],
                fill=_filling(shape, what, size),
                group=None if group is None else str(group),
            )
        )
    count = max(i for i in ids.values() if i is not None) + 1
    return draw(shapes, size, num_classes=count, by_area=False)


def _filling(
    shape: Mapping[str, Any], what: str, size: tuple[int, int]
) -> Callable[[tuple[int, int]], np.ndarray]:
    """Returns the function that fills a shape."""
    kind, points = shape["shape_type"], shape["points"]
    if kind == "polygon":
        return functools.partial(polygons.fill, polygons.checked(points, what, size))
    if kind not in ("rectangle", "circle", "mask"):
        raise UserError(
            f"{what} has the shape_type {str(kind)[:40]!a}: needed a polygon, "
            f"rectangle, circle or mask; draw it again."
        )
    (x0, y0), (x1, y1) = _two_points(points, what)
    if kind == "mask":
        return functools.partial(_paste, shape.get("mask"), (x0, y0), what)
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        if radius == 0:
            raise UserError(f"{what} is a circle of radius 0: needed more; remove it.")
        return functools.partial(polygons.fill_ellipse, (x0, y0), (radius, radius))
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    return functools.partial(polygons.fill, polygons.checked(corners, what, size))


def _two_points(points: Sequence, what: str) -> list[list[float]]:
    try:
        found = np.array(points, np.float64)
        fits = found.shape == (2, 2) and bool((np.abs(found) < 2**31).all())
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise UserError(
            f"{what} has {len(points)} points: needed two of x and y; draw it again."
        )
    return found.tolist()


def _paste(
    encoded: Any, corner: tuple[float, float], what: str, size: tuple[int, int]
) -> np.ndarray:
    """Decodes a mask, a PNG in base64, whose first pixel is at a corner."""
    try:
        content = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise UserError(
            f"{what} has no mask in base64: needed one; draw it again."
        ) from None
    mask = np.asarray(images.decode(content, what)).astype(bool)
    x, y = (int(value) for value in corner)
    height, width = mask.shape[:2]
    if mask.ndim != 2 or x < 0 or y < 0 or x + width > size[1] or y + height > size[0]:
        raise UserError(
            f"{what} has a mask of {width}x{height} pixels at ({x}, {y}): needed one "
            f"inside its image of {size[1]}x{size[0]}; draw it again."
        )
    whole = np.zeros(size, bool)
    whole[y : y + height, x : x + width] = mask
    return whole
