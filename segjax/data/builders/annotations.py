"""COCO's annotation files: found, read, and checked before anything is written."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.builders import coco_json, coco_shapes, files, splits
from segjax.data.builders.sources import Tree
from segjax.data.objects import coco_mask
from segjax.files import limits

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
        split = splits.SPLITS.get(name.lower())
        if split and (path := _only_json(tree, name)):
            found[split] = (path, _image_folder(tree, name))
    for path in tree.files("annotations"):
        name = path.rpartition("/")[2].removesuffix(".json").removeprefix("instances_")
        split = splits.SPLITS.get(name.lower().rstrip("0123456789"))
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
    where = tree.shown(path)
    content = coco_json.parse(tree.read(path, most=limits.JSON_BYTES), where)
    categories = {c["id"]: c["name"] for c in content["categories"]}
    files.check_names(categories.values(), where)
    by_image: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    for one in content["annotations"]:
        _check(one, where, categories=categories, sizes=sizes)
        category = categories[one["category_id"]]
        by_image[one["image_id"]].append(one | {"category": category})
    images: dict[str, Image] = {}
    listed = functools.cache(lambda inner: frozenset(tree.files(inner)))
    for entry in content["images"]:
        file = _file_of(entry, where, folder=folder, within=tree.shown(folder))
        # Files in folders inside it are listed by their own folder.
        if file not in listed(file.rpartition("/")[0]):
            raise ValueError(
                f"{where}: the file {entry['file_name']} of image {entry['id']} is not "
                f"in {tree.shown(folder)}: needed every image that is listed; add it, "
                f"or remove it from the list."
            )
        if file in images:
            raise ValueError(
                f"{where}: image {entry['id']} has the file of another one, "
                f"{entry['file_name']}: needed one entry a file; merge them."
            )
        size, name = sizes[entry["id"]], files.stem(file)
        images[file] = Image(name, file, size, by_image[entry["id"]])
    return Part(categories, list(images.values()))


def _file_of(entry: Mapping[str, Any], where: str, *, folder: str, within: str) -> str:
    """The path of an image in the tree, never outside of its folder."""
    name = entry["file_name"]
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(
            f"{where}: image {entry['id']} has the file_name {name!a}: needed a "
            f"path below {within}, without ..; correct it."
        )
    return f"{folder}/{name}".lstrip("/")


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
    x, y, w, h = one["bbox"]
    if max(-x, -y, x + w - width, y + h - height) > _OUTSIDE or min(w, h) < 0:
        raise ValueError(
            f"{what} has the box {one['bbox']} (x, y, width, height): needed one "
            f"inside its image of {width}x{height} pixels; correct it."
        )
    shape = one.get("segmentation")
    if isinstance(shape, Mapping):
        coco_shapes.check_run_lengths(shape, what, (height, width))
    elif isinstance(shape, list) and shape:
        coco_shapes.check_polygons(shape, what, (height, width))
    else:
        raise ValueError(
            f"{what} has no mask: needed `segmentation` with polygons or run lengths; "
            f"draw it, or remove the annotation."
        )


def rle(one: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """The mask of an annotation as compressed run lengths, as pycocotools makes it."""
    shape, masks = one["segmentation"], coco_mask()
    if not isinstance(shape, Mapping):
        return masks.merge(masks.frPyObjects(shape, *size))
    if isinstance(shape["counts"], list):
        return masks.frPyObjects(shape, *size)
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
