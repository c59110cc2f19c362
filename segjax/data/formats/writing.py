"""Writes annotated images as a plain folder that `data.folder` or `data.coco` reads."""

import collections
import contextlib
import functools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile

from segjax.data.builders import base, files, packing
from segjax.data.formats.items import Annotated, Drawn, Item
from segjax.errors import UserError

_FOLDERS = {"": "", "train": "train/", "validation": "validation/", "test": "test/"}


def write(annotated: Annotated, out: str | os.PathLike, *, objects: bool) -> None:
    """Writes images and masks, or images and COCO annotations.

        out/classes.txt   out/train/images/a.jpg   out/train/masks/a.png
        out/train/images/a.jpg   out/train/annotations.json    (with objects)

    Without splits there is no folder train/. Images are copied. The folder appears when
    it is complete.

    Args:
        annotated: From the reader of a format.
        out: The folder to create.
        objects: Writes objects instead of masks of classes.

    Raises:
        ValueError: If the folder exists, or a file is broken; the message names it.
    """
    if not annotated.items:
        raise UserError(f"{annotated.tree.shown('')} has no annotated image.")
    _check_names(annotated)
    with _new_folder(pathlib.Path(out).expanduser().absolute()) as root:
        bar = base.Progress("images", len(annotated.items), action="Importing")
        with bar, base.threads() as pool:
            write_one = functools.partial(_write_one, annotated, root, objects)
            rows = pool.map(write_one, annotated.items)
            found: dict[str, list[tuple[Item, Any]]] = {}
            for item, row in zip(annotated.items, rows, strict=True):
                found.setdefault(item.split, []).append((item, row))
                bar.advance()
        if objects:
            for split, made in found.items():
                content = _coco(annotated.classes, made)
                path = root / _FOLDERS[split] / "annotations.json"
                path.write_text(json.dumps(content))
        else:
            names = "\n".join(annotated.classes)
            (root / "classes.txt").write_text(f"{names}\n", encoding="utf-8")


def _check_names(annotated: Annotated) -> None:
    files.check_names(annotated.classes, annotated.tree.shown(""))
    if len(set(annotated.classes)) < len(annotated.classes):
        counts = collections.Counter(annotated.classes)
        raise UserError(
            f"{annotated.tree.shown('')} has two classes called "
            f"{counts.most_common(1)[0][0]}: needed different names, background for "
            f"class 0 only; rename one."
        )
    seen: dict[tuple[str, str], str] = {}
    for item in annotated.items:
        key = item.split, item.name
        if key in seen:
            raise UserError(
                f"{annotated.tree.shown(item.image)} and {seen[key]} have the same "
                f"name: needed each image once; remove or rename one."
            )
        seen[key] = item.image


@contextlib.contextmanager
def _new_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `out`, or is removed on an error."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} exists: needed a new folder to write to; choose another, or remove "
            f"it."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield made
        made.chmod(0o755)
        os.replace(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_one(
    annotated: Annotated, root: pathlib.Path, objects: bool, item: Item
) -> list[dict[str, Any]] | None:
    """Writes an image and its mask; returns the rows of its objects."""
    tree, place = annotated.tree, root / _FOLDERS[item.split]
    if item.pixels is None:
        image = files.read_image(tree, item.image)  # Readable, before it counts.
        suffix = item.image.rpartition(".")[2].lower()
    else:
        image = item.pixels()
        suffix = "png" if image.shape[-1] == 1 else "tif"
    height, width = image.shape[:2]
    drawn = item.draw((height, width))
    target = place / "images" / f"{item.name}.{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if item.pixels is None:
        target.write_bytes(tree.read(item.image))
    elif suffix == "png":
        target.write_bytes(packing.to_png(image[..., 0]).getvalue())
    else:
        tifffile.imwrite(target, image, planarconfig="contig", photometric="minisblack")
    if objects:
        return _rows(drawn, f"{item.name}.{suffix}", tree.shown(item.image))
    mask = place / "masks" / f"{item.name}.png"
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.write_bytes(packing.to_png(drawn.label).getvalue())
    return None


def _rows(drawn: Drawn, file_name: str, where: str) -> list[dict[str, Any]]:
    if drawn.objects is None:
        raise UserError(
            f"{where} has no objects in this format, only classes: import it without "
            f"--objects."
        )
    height, width = drawn.label.shape
    image = {"file_name": file_name, "height": height, "width": width}
    return [image, *(_row(*one) for one in drawn.objects)]


def _row(class_id: int, mask: np.ndarray, is_crowd: bool) -> dict[str, Any]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    return {
        "category_id": class_id,
        "bbox": box,
        "area": int(mask.sum()),
        "iscrowd": int(is_crowd),
        "segmentation": {"size": list(mask.shape), "counts": _run_lengths(mask)},
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Encodes a mask as COCO's run lengths: column by column, background first."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *counts] if flat[0] else counts


def _coco(classes: tuple[str, ...], made: list[tuple[Item, Any]]) -> dict[str, Any]:
    images, annotations = [], []
    for number, (_, (image, *rows)) in enumerate(made, start=1):
        images.append({"id": number, **image})
        for row in rows:
            identity = {"id": len(annotations) + 1, "image_id": number}
            annotations.append(identity | row)
    return {
        "images": images,
        "categories": [
            {"id": i, "name": name} for i, name in enumerate(classes) if i > 0
        ],
        "annotations": annotations,
    }
