"""YOLO's segmentation text: one line of class and polygon for each object."""

import functools
from typing import Any

import numpy as np
import yaml

from segjax.data.builders.sources import Tree
from segjax.data.builders.splits import SPLITS
from segjax.data.formats import polygons
from segjax.data.formats.items import (
    Annotated,
    Drawn,
    Item,
    Shape,
    draw,
    files_below,
    image_files,
)
from segjax.errors import UserError
from segjax.files import limits, reading

_NEEDS = "data.yaml with names, images/ and labels/ with NAME.txt"


def yolo(tree: Tree) -> Annotated:
    """Reads a YOLO segmentation data set.

        source/data.yaml   source/images/train/a.jpg   source/labels/train/a.txt
        source/data.yaml   source/train/images/a.jpg   source/train/labels/a.txt

    A line is the class and x and y of the points, divided by width and height. The
    classes are background and the names of data.yaml. The format has no order: smaller
    objects are drawn over larger ones. An image without a text file has no objects.

    Args:
        tree: The files.

    Raises:
        ValueError: If a file is malformed, or a text file has no image.
    """
    names = _names(tree)
    there = {_key(k): v for k, v in image_files(tree, "").items()}
    texts = {_key(n.rpartition(".")[0]): n for n in _label_files(tree)}
    for key in texts.keys() - there.keys():
        raise UserError(
            f"{tree.shown(texts[key])} has no image: needed {key[1]}.* in the folder "
            f"images; add it, or remove the text file."
        )
    if not texts:
        raise UserError(
            f"{tree.shown('')} has no text file in labels: needed {_NEEDS}."
        )
    items = []
    for key, image in there.items():
        *folders, stem = key
        split = next((SPLITS[f.lower()] for f in folders if f.lower() in SPLITS), "")
        rest = [f for f in folders if f.lower() not in SPLITS]
        make = functools.partial(_draw, tree, texts.get(key), len(names))
        items.append(Item("/".join([*rest, stem]), image, split, make))
    empty = len(there.keys() - texts.keys())
    notes = (f"images without a text file have no objects: {empty}.",) if empty else ()
    return Annotated(tree, ("background", *names), tuple(items), notes)


def _label_files(tree: Tree) -> list[str]:
    return [n for n in files_below(tree, "", ".txt") if "labels" in n.split("/")[:-1]]


def _key(path: str) -> tuple[str, ...]:
    """Returns the parts of a path without the folder of images or labels."""
    return tuple(part for part in path.split("/") if part not in ("images", "labels"))


def _names(tree: Tree) -> tuple[str, ...]:
    found = [n for n in tree.files("") if n.lower().endswith((".yaml", ".yml"))]
    if len(found) != 1:
        raise UserError(
            f"{tree.shown('')} has {len(found)} YAML files: needed one, {_NEEDS}."
        )
    where = tree.shown(found[0])
    text = reading.decode_text(tree.read(found[0], max_bytes=limits.TEXT_BYTES), where)
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{where} is not YAML ({reason}): needed {_NEEDS}.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(
        map(str, range(len(names)))
    ):
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise UserError(
            f"{where} has no list of names: needed one for each class from 0, such as "
            f"names: [cat, dog]; add it."
        )
    return tuple(map(str, names))


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _draw(tree: Tree, name: str | None, num_names: int, size: tuple[int, int]) -> Drawn:
    shapes = []
    if name is not None:
        where = tree.shown(name)
        content = tree.read(name, max_bytes=limits.TEXT_BYTES)
        lines = reading.decode_text(content, where).splitlines()
        for number, line in enumerate(lines, start=1):
            if line.strip():
                shapes.append(_shape(line, f"{where}: line {number}", num_names, size))
    return draw(shapes, size, num_classes=num_names + 1, by_area=True)


def _shape(line: str, what: str, num_names: int, size: tuple[int, int]) -> Shape:
    first, *rest = line.split()
    if not first.isdigit() or int(first) >= num_names:
        raise UserError(
            f"{what} has the class {first[:20]!a}: needed 0 to {num_names - 1}, as "
            f"data.yaml names; correct it."
        )
    try:
        values = np.array([float(value) for value in rest])
    except ValueError:
        values = np.full(1, np.nan)
    if len(values) == 4:
        raise UserError(
            f"{what} has a box of four numbers: needed x and y of at least three "
            f"points; export the data set for segmentation."
        )
    if len(values) % 2 or not ((values >= -1) & (values <= 2)).all():
        raise UserError(
            f"{what} has {len(values)} numbers: needed x and y of points, divided by "
            f"width and height, so from 0 to 1; correct it."
        )
    points = values.reshape(-1, 2) * [size[1], size[0]]
    corners = polygons.checked(points.tolist(), what, size)
    return Shape(int(first) + 1, functools.partial(polygons.fill, corners))
