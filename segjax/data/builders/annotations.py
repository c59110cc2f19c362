"""Finding, reading and checking COCO's annotation files."""

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.builders import coco_json, coco_shapes, files, splits
from segjax.data.builders.sources import Tree
from segjax.data.objects import coco_mask
from segjax.errors import UserError
from segjax.files import limits

NEEDS = (
    "annotations.json and images/, these two in train/ (and validation/, test/), or "
    "annotations/instances_NAME.json and NAME/ (or images/)"
)
_UINT16_MAX = np.iinfo(np.uint16).max
_TOLERANCE = 1.0  # Pixels that a box may extend over the border, since tools round.


@dataclasses.dataclass(frozen=True)
class Image:
    """An image and its annotations.

    Attributes:
        name: Without folder and suffix.
        file: Name in the tree.
        size: (height, width) according to the annotation file.
        annotations: COCO's annotations, each with its category's name as `category`.
    """

    name: str
    file: str
    size: tuple[int, int]
    annotations: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Part:
    """One annotation file.

    Attributes:
        categories: Names by id.
        images: In the file's order.
    """

    categories: dict[int, str]
    images: list[Image]


def find(tree: Tree) -> dict[str, tuple[str, str]]:
    """Finds for each split its annotation file and the folder of its images.

    Raises:
        ValueError: If there is none, or the choice is ambiguous.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in tree.folders(""):
        split = splits.SPLITS.get(name.lower())
        if split and (path := _only_json(tree, name)):
            found[split] = (path, _image_folder(tree, name))
    for path in tree.files("annotations"):
        name = path.rpartition("/")[2].removesuffix(".json").removeprefix("instances_")
        split = splits.SPLITS.get(name.lower().rstrip("0123456789"))
        places = (name, f"images/{name}", "images")
        folder = next((f for f in places if tree.files(f)), None)
        if split and folder and path.endswith(".json"):
            found[split] = (path, folder)
    if not found and (path := _only_json(tree, "")):
        found["train"] = (path, _image_folder(tree, ""))
    if "train" not in found:
        got = ", ".join([*tree.folders(""), *tree.files("")][:6]) or "nothing"
        raise UserError(
            f"{tree.shown('')} has no annotation file for training: needed {NEEDS}, "
            f"got {got}."
        )
    return found


def _only_json(tree: Tree, folder: str) -> str | None:
    found = [name for name in tree.files(folder) if name.endswith(".json")]
    if len(found) > 1:
        raise UserError(
            f"{tree.shown(folder)} has {len(found)} annotation files: needed one, got "
            f"{', '.join(n.rpartition('/')[2] for n in found)}; keep the one to use."
        )
    return found[0] if found else None


def _image_folder(tree: Tree, folder: str) -> str:
    inner = f"{folder}/images" if folder else "images"
    return inner if tree.files(inner) else folder


def read(tree: Tree, path: str, folder: str) -> Part:
    """Reads and checks one annotation file.

    Args:
        tree: Contains the files.
        path: The annotation file.
        folder: The folder of its images.

    Raises:
        ValueError: See `data.coco`.
    """
    where = tree.shown(path)
    content = coco_json.parse(tree.read(path, max_bytes=limits.JSON_BYTES), where)
    if not content["annotations"]:
        raise UserError(
            f"{where} has no annotation: needed the objects of its "
            f"{len(content['images'])} images; export it with annotations."
        )
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
        paths = _paths_of(entry, where, folder=folder, within=tree.shown(folder))
        there = (path for path in paths if path in listed(path.rpartition("/")[0]))
        file = next(there, None)
        if file is None:
            raise UserError(
                f"{where}: the file {entry['file_name']} of image {entry['id']} is not "
                f"in {tree.shown(folder)}: needed every listed image; add it, or "
                f"remove it from the list."
            )
        if file in images:
            raise UserError(
                f"{where}: image {entry['id']} and another one have the same file, "
                f"{entry['file_name']}: needed one entry per file; merge them."
            )
        size, name = sizes[entry["id"]], files.stem(file)
        images[file] = Image(name, file, size, by_image[entry["id"]])
    return Part(categories, list(images.values()))


def _paths_of(
    entry: Mapping[str, Any], where: str, *, folder: str, within: str
) -> list[str]:
    """Returns the paths in the tree that a `file_name` may mean, the longest first.

    Tools write the name below the image folder, or a path on the machine where the
    images were annotated: `/work/images/a.png` may mean `work/images/a.png`,
    `images/a.png` and `a.png`, all of them below the image folder.
    """
    name = entry["file_name"]
    parts = [p for p in re.split(r"[/\\]", name) if p not in ("", ".")]
    if ".." in parts or "\0" in name or not parts:
        raise UserError(
            f"{where}: image {entry['id']} has the file_name {name!a}: needed a "
            f"path below {within}, without ..; correct it."
        )
    prefix = f"{folder}/" if folder else ""
    return [prefix + "/".join(parts[start:]) for start in range(len(parts))]


def _check(
    one: Mapping[str, Any],
    where: str,
    *,
    categories: Mapping[Any, str],
    sizes: Mapping[Any, tuple[int, int]],
) -> None:
    """Raises a ValueError that names the annotation if it is invalid."""
    what = f"{where}: annotation {one['id']}"
    if one["category_id"] not in categories:
        raise UserError(
            f"{what} has category {one['category_id']}: needed one of "
            f"{files.ranges(categories)}; declare it under categories."
        )
    if one["image_id"] not in sizes:
        raise UserError(
            f"{what} has image_id {one['image_id']}, which is not listed: needed an id "
            f"under images; add the image, or remove the annotation."
        )
    height, width = sizes[one["image_id"]]
    x, y, w, h = one["bbox"]
    if max(-x, -y, x + w - width, y + h - height) > _TOLERANCE or min(w, h) < 0:
        raise UserError(
            f"{what} has the box {one['bbox']} (x, y, width, height): needed one "
            f"inside its image of {width}x{height} pixels; correct it."
        )
    shape = one.get("segmentation")
    if isinstance(shape, Mapping):
        coco_shapes.check_run_lengths(shape, what, (height, width))
    elif isinstance(shape, list) and shape:
        coco_shapes.check_polygons(shape, what, (height, width))
    else:
        raise UserError(
            f"{what} has no mask: needed `segmentation` with polygons or run lengths; "
            f"draw it, or remove the annotation."
        )


def rle(one: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """Encodes the mask of an annotation as compressed run lengths, by pycocotools."""
    shape, masks = one["segmentation"], coco_mask()
    if not isinstance(shape, Mapping):
        return masks.merge(masks.frPyObjects(shape, *size))
    if isinstance(shape["counts"], list):
        return masks.frPyObjects(shape, *size)
    return {"size": list(size), "counts": shape["counts"].encode()}


def class_names(
    tree: Tree, parts: Mapping[str, tuple[str, str]], read: Mapping[str, Part]
) -> list[str]:
    """Returns background and the categories by id, equal in all files."""
    first = next(iter(read))
    for split, part in read.items():
        if part.categories != read[first].categories:
            raise UserError(
                f"{tree.shown(parts[split][0])} and {tree.shown(parts[first][0])} have "
                f"different categories: needed the same ids and names in both; export "
                f"them together."
            )
    categories = read[first].categories
    names = ["background", *(categories[k] for k in sorted(categories))]
    if len(set(names)) < len(names) or not 1 < len(names) < _UINT16_MAX:
        raise UserError(
            f"{tree.shown(parts[first][0])} declares {len(names) - 1} categories: "
            f"needed 1 to {_UINT16_MAX - 2} with different names, none of them "
            f"background; rename or merge some."
        )
    return names


def check_disjoint(tree: Tree, read: Mapping[str, Part]) -> None:
    """Raises a ValueError if a file is listed in two splits."""
    seen: dict[str, str] = {}
    for split, part in read.items():
        for image in part.images:
            other = seen.setdefault(image.file, split)
            if other != split:
                raise UserError(
                    f"{tree.shown(image.file)} is listed in {other} and in {split}: "
                    f"needed each image in one split; remove it from one of them."
                )
