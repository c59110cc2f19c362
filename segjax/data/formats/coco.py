"""COCO's JSON, for masks of classes; `data.coco` reads the same files directly."""

import functools

import numpy as np

from segjax.data.builders import annotations
from segjax.data.builders.sources import Tree
from segjax.data.formats.items import Annotated, Drawn, Item, check_size
from segjax.data.objects import coco_mask, draw_label


def coco(tree: Tree) -> Annotated:
    """Reads images with COCO annotations, in the layouts of `data.coco`.

    Masks are those of pycocotools. Smaller objects are drawn over larger ones, and
    pixels of crowds that no object covers are ignored.

    Args:
        tree: The files.

    Raises:
        ValueError: See `data.coco`.
    """
    parts = annotations.find(tree)
    read = {k: annotations.read(tree, *v) for k, v in parts.items()}
    annotations.check_disjoint(tree, read)
    classes = annotations.class_names(tree, parts, read)
    has_splits = read.keys() != {"train"}
    items = []
    for split, part in read.items():
        folder = parts[split][1]
        for image in part.images:
            name = image.file.removeprefix(f"{folder}/").rpartition(".")[0]
            where = tree.shown(parts[split][0])
            make = functools.partial(_draw, image, classes, where)
            items.append(Item(name, image.file, split if has_splits else "", make))
    return Annotated(tree, tuple(classes), tuple(items))


def _draw(
    image: annotations.Image, classes: list[str], where: str, size: tuple[int, int]
) -> Drawn:
    check_size(size, image.size, where, image.file)
    rles = [annotations.rle(one, size) for one in image.annotations]
    ids = [classes.index(one["category"]) for one in image.annotations]
    crowd = [bool(one.get("iscrowd", 0)) for one in image.annotations]
    label = draw_label(rles, ids, crowd, size, len(classes))
    masks = [coco_mask().decode(rle).astype(bool) for rle in rles]
    rows = zip(ids, masks, crowd, strict=True)
    objects: list[tuple[int, np.ndarray, bool]] = [r for r in rows if r[1].any()]
    return Drawn(label, objects)
