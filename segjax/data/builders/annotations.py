"""COCO's annotation files: found, read, and checked before anything is written."""

import collections
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segjax.data.builders import files, shares
from segjax.data.builders.sources import Tree

NEEDS = (
    "annotations.json and images/, these two in train/ (and validation/, test/), or "
    "annotations/instances_NAME.json and NAME/"
)
_MOST = np.iinfo(np.uint16).max
_OUTSIDE = 1.0  # Pixels that a box may reach over the border: tools round.


@dataclasses.dataclass(frozen=True)
class Image:
    """An image and what is annotated in it.

    Attributes:
        name: Without folder and suffix.
        file: In the tree.
        size: (height, width) as the annotation file has it.
        annotations: COCO's, each with its category's name as `category`.
    """

    name: str
    file: str
    size: tuple[int, int]
    annotations: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Part:
    """One annotation file.

    Attributes:
        categories: Id to name.
        images: In the file's order.
    """

    categories: dict[int, str]
    images: list[Image]


def find(tree: Tree) -> dict[str, tuple[str, str]]:
    """Split to (annotation file, folder of its images).

    Raises:
        ValueError: If there is none, or it is not clear which.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in tree.folders(""):
        split = shares.SPLITS.get(name.lower())
        if split and (path := _only_json(tree, name)):
            found[split] = (path, _image_folder(tree, name))
    for path in tree.files("annotations"):
        name = path.rpartition("/")[2].removesuffix(".json").removeprefix("instances_")
        split = shares.SPLITS.get(name.lower().rstrip("0123456789"))
        folder = next((f for f in (name, f"images/{name}") if tree.files(f)), None)
        if split and folder and path.endswith(".json"):
            found[split] = (path, folder)
    if not found and (path := _only_json(tree, "")):
        found["train"] = (path, _image_folder(tree, ""))
    if "train" not in found:
        got = ", ".join([*tree.folders(""), *tree.files("")][:6]) or "nothing"
        raise ValueError(
            f"{tree.shown('')} has no annotation file for training: needed {NEEDS}, "
            f"got {got}."
        )
    return found


def _only_json(tree: Tree, folder: str) -> str | None:
    found = [name for name in tree.files(folder) if name.endswith(".json")]
    if len(found) > 1:
        raise ValueError(
            f"{tree.shown(folder)} has {len(found)} annotation files: needed one, got "
            f"{', '.join(n.rpartition('/')[2] for n in found)}; keep the one to use."
        )
    return found[0] if found else None


def _image_folder(tree: Tree, folder: str) -> str:
    inner = f"{folder}/images" if folder else "images"
    return inner if tree.files(inner) else folder


def read(tree: Tree, path: str, folder: str) -> Part:
    """Reads one annotation file and checks all of it.

    Args:
        tree: Where it lies.
        path: The annotation file.
        folder: Where its images lie.

    Raises:
        ValueError: As `data.coco` says.
    """
    content = _json(tree, path)
    where = tree.shown(path)
    categories = {c["id"]: str(c["name"]) for c in content["categories"]}
    by_image: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    for one in content["annotations"]:
        _check(one, where, categories=categories, sizes=sizes)
        category = categories[one["category_id"]]
        by_image[one["image_id"]].append(one | {"category": category})
    present = set(tree.files(folder))
    images = []
    for entry in content["images"]:
        file = f"{folder}/{entry['file_name']}".lstrip("/")
        if file not in present and file not in tree.files(file.rpartition("/")[0]):
            raise ValueError(
                f"{where}: the file {entry['file_name']} of image {entry['id']} is not "
                f"in {tree.shown(folder)}: needed every image that is listed; add it, "
                f"or remove it from the list."
            )
        name = files.stem(file)
        images.append(Image(name, file, sizes[entry["id"]], by_image[entry["id"]]))
    return Part(categories, images)


def _json(tree: Tree, path: str) -> dict[str, Any]:
    try:
        content = json.loads(tree.read(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{tree.shown(path)} is not JSON ({error}): needed COCO annotations; "
            f"export them again."
        ) from error
    needed = {
        "images": ("id", "file_name", "height", "width"),
        "categories": ("id", "name"),
        "annotations": ("id", "image_id", "category_id", "bbox"),
    }
    for table, fields in needed.items():
        rows = content.get(table) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise ValueError(
                f"{tree.shown(path)} has no list {table!r}: needed COCO's images, "
                f"categories and annotations; export them again."
            )
        seen = set()
        for row in rows:
            missing = [f for f in fields if f not in row]
            if missing or row["id"] in seen:
                fault = f"no {missing[0]}" if missing else "an id that is used twice"
                raise ValueError(
                    f"{tree.shown(path)}: entry {row.get('id', '?')} of {table} has "
                    f"{fault}: needed {', '.join(fields)}, each id once; correct it."
                )
            seen.add(row["id"])
    return content


def _check(
    one: Mapping[str, Any],
    where: str,
    *,
    categories: Mapping[Any, str],
    sizes: Mapping[Any, tuple[int, int]],
) -> None:
    """Raises a ValueError that names the annotation if it does not fit."""
    what = f"{where}: annotation {one['id']}"
    if one["category_id"] not in categories:
        raise ValueError(
            f"{what} has category {one['category_id']}: needed one of "
            f"{files.ranges(categories)}; declare it under categories."
        )
    if one["image_id"] not in sizes:
        raise ValueError(
            f"{what} is of image {one['image_id']}, which is not listed: needed an id "
            f"under images; add the image, or remove the annotation."
        )
    height, width = sizes[one["image_id"]]
    x, y, w, h = (float(v) for v in one["bbox"])
    far = (-x, -y, x + w - width, y + h - height)
    if not all(map(math.isfinite, far)) or max(far) > _OUTSIDE or min(w, h) < 0:
        raise ValueError(
            f"{what} has the box {one['bbox']} (x, y, width, height): needed one "
            f"inside its image of {width}x{height} pixels; correct it."
        )
    _check_shape(one.get("segmentation"), what, (height, width))


def _check_shape(shape: Any, what: str, size: tuple[int, int]) -> None:
    if isinstance(shape, Mapping):
        if list(shape.get("size", ())) != list(size):
            raise ValueError(
                f"{what} has run lengths of size {shape.get('size')}: needed "
                f"{list(size)}, [height, width] of its image; export it again."
            )
        return
    if not isinstance(shape, Sequence) or not shape:
        raise ValueError(
            f"{what} has no mask: needed `segmentation` with polygons or run lengths; "
            f"draw it, or remove the annotation."
        )
    for polygon in shape:
        if len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)):
            raise ValueError(
                f"{what} has a polygon of {len(polygon)} numbers: needed x and y of at "
                f"least three points; correct or remove it."
            )


def rle(one: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """The mask of an annotation as compressed run lengths, as pycocotools makes it."""
    shape: Any = one["segmentation"]
    if not isinstance(shape, Mapping):
        return coco_mask.merge(coco_mask.frPyObjects(shape, *size))
    if isinstance(shape["counts"], list):
        return coco_mask.frPyObjects(shape, *size)  # type: ignore[arg-type]
    return {"size": list(size), "counts": shape["counts"].encode()}


def class_names(
    tree: Tree, parts: Mapping[str, tuple[str, str]], read: Mapping[str, Part]
) -> list[str]:
    """Background, then the categories by id; all files must agree on them."""
    first = next(iter(read))
    for split, part in read.items():
        if part.categories != read[first].categories:
            raise ValueError(
                f"{tree.shown(parts[split][0])} has other categories than "
                f"{tree.shown(parts[first][0])}: needed the same ids and names in "
                f"both; export them together."
            )
    categories = read[first].categories
    names = ["background", *(categories[k] for k in sorted(categories))]
    if len(set(names)) < len(names) or not 1 < len(names) < _MOST:
        raise ValueError(
            f"{tree.shown(parts[first][0])} declares {len(names) - 1} categories: "
            f"needed 1 to {_MOST - 2} of different names, none of them background; "
            f"rename or merge some."
        )
    return names
