"""Measured objects as records: COCO annotations, GeoJSON, rows of a CSV table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from segjax.inference.objects import Objects
from segjax.inference.outlines import polygons, run_lengths

_KERNEL = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]])
_LENGTHS = np.zeros(50)
_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1
_LENGTHS[[21, 33]] = np.sqrt(2)
_LENGTHS[[13, 23]] = (1 + np.sqrt(2)) / 2


def annotations(
    found: Objects, *, image: Any = None, image_id: int = 1, digits: int = 3
) -> list[dict[str, Any]]:
    """Describes objects as COCO annotations, with further measurements.

    Args:
        found: The objects; their order is that of the ids, from 1.
        image: [H, W, K] as stored, or a reader of its windows, for intensities; None
            to leave these out.
        image_id: The number of the image.
        digits: Decimals of the measurements. Boxes and scores are not rounded.

    Returns:
        For each object `id`, `image_id`, `category_id`, `segmentation` (run lengths),
        `area`, `bbox` (x, y, width, height), `iscrowd` and `score`; `centroid` (x, y)
        in pixels, where the first pixel's center is (0.5, 0.5); `perimeter` in pixels,
        as of `skimage.measure.perimeter`; and `mean_intensity` of each channel.
    """
    made = []
    for i, (mask, corner) in enumerate(zip(found.masks, found.corners, strict=True)):
        x0, y0, x1, y1 = (float(edge) for edge in found.boxes[i])
        y, x = (int(n) for n in corner)
        counts = run_lengths(mask, corner, found.size)
        row: dict[str, Any] = {
            "id": i + 1,
            "image_id": image_id,
            "category_id": int(found.classes[i]),
            "segmentation": {"size": list(found.size), "counts": counts},
            "area": int(mask.sum()),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            "score": float(found.scores[i]),
        }
        if mask.any():
            rows, columns = np.nonzero(mask)
            center = columns.mean() + x + 0.5, rows.mean() + y + 0.5
            row["centroid"] = [round(float(n), digits) for n in center]
            row["perimeter"] = round(perimeter(mask), digits)
            if image is not None:
                window = image[y : y + mask.shape[0], x : x + mask.shape[1]]
                means = window[mask].mean(axis=0, dtype=np.float64)
                row["mean_intensity"] = [round(float(m), digits) for m in means]
        made.append(row)
    return made


def perimeter(mask: np.ndarray) -> float:
    """Estimates the length of a mask's outline, in pixels.

    Equals `skimage.measure.perimeter`: border pixels count by how the outline turns.

    Reference:
        Benkrid and Crookes, Design and FPGA implementation of a perimeter estimator,
        2000.
    """
    padded = np.pad(mask, 1)
    border = padded & ~np.asarray(scipy.ndimage.binary_erosion(padded), bool)
    codes = scipy.ndimage.convolve(border.astype(np.int32), _KERNEL, mode="constant")
    return float(np.bincount(codes.ravel(), minlength=50)[:50] @ _LENGTHS)


def coco(
    images: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Builds a COCO data set, whose list `annotations` is also a COCO result.

    Args:
        images: `id`, `file_name`, `height` and `width` of each.
        rows: From `annotations`.
        classes: Names; class 0 is a category as well, for multilabel models.
    """
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    return {"images": list(images), "annotations": list(rows), "categories": categories}


def geojson(
    found: Objects, rows: Iterable[Mapping[str, Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """Builds a feature collection with the outlines of objects, in pixels, y down."""
    features = []
    for mask, corner, row in zip(found.masks, found.corners, rows, strict=True):
        outline = polygons(mask, corner)
        if not outline:
            continue
        single = len(outline) == 1
        properties = {
            "class": classes[row["category_id"]],
            "score": row["score"],
            "area": row["area"],
        }
        features.append(
            {
                "type": "Feature",
                "id": row["id"],
                "geometry": {
                    "type": "Polygon" if single else "MultiPolygon",
                    "coordinates": outline[0] if single else outline,
                },
                "properties": properties,
            }
        )
    return {"type": "FeatureCollection", "features": features}


def table(
    dataset: Mapping[str, Any], *, channels: int
) -> tuple[list[str], list[list[Any]]]:
    """Returns the header and the rows of a table of all objects of a COCO data set."""
    names = {image["id"]: image["file_name"] for image in dataset["images"]}
    classes = {c["id"]: c["name"] for c in dataset["categories"]}
    intensities = [f"mean_intensity_{k}" for k in range(channels)]
    header = [
        *("image", "object", "class", "score", "area", "centroid_x", "centroid_y"),
        *("x0", "y0", "x1", "y1", "perimeter"),
        *(["mean_intensity"] if channels == 1 else intensities),
    ]
    rows = []
    for row in dataset["annotations"]:
        x, y, width, height = row["bbox"]
        box = [round(edge, 2) for edge in (x, y, x + width, y + height)]
        rows.append(
            [
                names[row["image_id"]],
                row["id"],
                classes[row["category_id"]],
                round(row["score"], 4),
                row["area"],
                *row.get("centroid", ["", ""]),
                *box,
                row.get("perimeter", ""),
                *row.get("mean_intensity", [""] * channels),
            ]
        )
    return header, rows
