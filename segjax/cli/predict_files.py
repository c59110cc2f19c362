"""The files that `segjax predict` writes."""

import csv
import io
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from segjax.cli import tables
from segjax.cli.predict_inputs import Job
from segjax.cli.predict_overlay import overlay
from segjax.cli.predict_work import Result, Work
from segjax.errors import UserError
from segjax.files import writing
from segjax.inference import measure
from segjax.inference.objects import Objects

SETTINGS = ".predict.json"
_TILE = 256
"""Side of the tiles of label maps in TIFF."""


def suffixes_of(work: Work, *, windowed: bool = False) -> list[str]:
    """Lists what is appended to the name of an image.

    Args:
        work: What is computed.
        windowed: Whether the image is read in windows.
    """
    settings, detects = work.settings, work.detect is not None
    objects = [".json", ".geojson"] if settings.objects or detects else []
    if windowed:
        return objects if detects else [".tif"]
    return [
        ".png",
        "_overlay.png",
        *([] if detects else ["_color.png"]),
        *objects,
        *(["_probabilities.npz"] if settings.probabilities else []),
        *(["_uncertainty.npz"] if settings.uncertainty else []),
    ]


def is_written(job: Job, out: pathlib.Path, suffixes: Sequence[str]) -> bool:
    """Whether all results of an image are there; they appear only when whole."""
    return all((out / f"{job.name}{suffix}").is_file() for suffix in suffixes)


def write(
    work: Work, job: Job, out: pathlib.Path, image: np.ndarray, result: Result
) -> None:
    """Writes the results of an image, each atomically."""
    path = out / job.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if result.labels.dtype == np.uint32:
        raise UserError(
            f"{job.path} has more than 65,535 objects, too many for a 16-bit PNG: "
            f"needed fewer; give --min-area."
        )
    _save(result.labels, _end(path, ".png"))
    if work.detect is None:
        palette = work.models[0].palette
        table = np.full((np.iinfo(result.labels.dtype).max + 1, 3), 255, np.uint8)
        table[: len(palette)] = palette
        _save(table[result.labels], _end(path, "_color.png"))
    _save(overlay(work, image, result), _end(path, "_overlay.png"))
    if result.objects is not None:
        write_objects(work, job, out, image, result.objects)
    if result.probabilities is not None:
        arrays = {"probabilities": result.probabilities}
        _save_arrays(arrays, _end(path, "_probabilities.npz"))
    if result.uncertainty is not None:
        _save_arrays(result.uncertainty, _end(path, "_uncertainty.npz"))


def write_objects(
    work: Work, job: Job, out: pathlib.Path, image: Any, found: Objects
) -> None:
    """Writes NAME.json (COCO) and NAME.geojson."""
    path, classes = out / job.name, work.models[0].classes
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = measure.annotations(found, image=image, image_id=job.number)
    about = {
        "id": job.number,
        "file_name": _shown(job),
        "height": found.size[0],
        "width": found.size[1],
    }
    _save_json(measure.coco([about], rows, classes), _end(path, ".json"))
    _save_json(measure.geojson(found, rows, classes), _end(path, ".geojson"))


def write_label_tiff(
    bands: Iterable[np.ndarray], size: tuple[int, int], path: pathlib.Path
) -> None:
    """Writes a label map that is never held as a whole, as a tiled BigTIFF."""
    import tifffile  # Here, since it is slow to import.

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = iter(bands)
    first = next(rows)
    with writing.atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            _tiles(itertools.chain([first], rows)),
            shape=size,
            dtype=first.dtype,
            tile=(_TILE, _TILE),
            bigtiff=True,
            compression="zlib",
            photometric="minisblack",
        )


def write_tables(jobs: Sequence[Job], out: pathlib.Path, *, channels: int) -> None:
    """Joins the objects of all images to objects.json and objects.csv."""
    merged: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for job in jobs:
        path = out / f"{job.name}.json"
        if path.is_file():  # Missing where the image could not be predicted.
            own = json.loads(path.read_bytes())
            merged["images"] += own["images"]
            merged["annotations"] += own["annotations"]
            merged["categories"] = own["categories"]
    header, rows = measure.table(merged, channels=channels)
    for number, row in enumerate(merged["annotations"], start=1):
        row["id"] = number  # Unique in the data set.
    _save_json(merged, out / "objects.json")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([tables.cell(value) for value in row] for row in [header, *rows])
    writing.write_bytes(out / "objects.csv", text.getvalue().encode())


def start(out: pathlib.Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Makes the output folder, and records or compares the settings.

    Raises:
        ValueError: If the folder has results of other settings, and `resume`.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / SETTINGS
    if resume and path.is_file():
        try:
            before = json.loads(path.read_bytes())
            changed = [k for k in settings if before.get(k) != settings[k]]
        except (ValueError, AttributeError):
            before, changed = {}, list(settings)
        if changed:
            raise UserError(
                f"{out} holds results of other settings ({', '.join(changed)}): needed "
                f"the same for --resume; give another --out, or leave --resume out."
            )
        return
    _save_json(settings, path)


def remove_unfinished(out: pathlib.Path, jobs: Sequence[Job], suffixes: Sequence[str]):
    """Deletes what a killed process was writing."""
    names = [f"{job.name}{suffix}" for job in jobs for suffix in suffixes]
    for name in (*names, "objects.json", "objects.csv", SETTINGS):
        path = out / name
        path.with_name(f".{path.name}.tmp").unlink(missing_ok=True)


def _shown(job: Job) -> str:
    page = f"_page{job.page + 1}" if isinstance(job.page, int) else f"_{job.page}"
    return job.path.name if job.page is None else f"{job.path.name}{page}"


def _end(path: pathlib.Path, suffix: str) -> pathlib.Path:
    """Appends a suffix; names may have dots."""
    return path.with_name(f"{path.name}{suffix}")


def _save(pixels: np.ndarray, path: pathlib.Path) -> None:
    picture = Image.fromarray(pixels)
    with writing.atomic(path) as temporary:
        picture.save(temporary, "PNG")


def _save_arrays(arrays: dict[str, np.ndarray], path: pathlib.Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    writing.write_bytes(path, file.getvalue())


def _save_json(content: Any, path: pathlib.Path) -> None:
    writing.write_bytes(path, f"{json.dumps(content)}\n".encode())


def _tiles(bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the tiles of rows of labels, padded with zeros, row by row."""
    waiting: list[np.ndarray] = []
    for band in bands:
        waiting.append(band)
        rows = np.concatenate(waiting)
        whole = len(rows) - len(rows) % _TILE
        yield from _row_tiles(rows[:whole])
        waiting = [rows[whole:]]
    yield from _row_tiles(waiting[0])


def _row_tiles(rows: np.ndarray) -> Iterator[np.ndarray]:
    for y in range(0, len(rows), _TILE):
        for x in range(0, rows.shape[1], _TILE):
            part = rows[y : y + _TILE, x : x + _TILE]
            tile = np.zeros((_TILE, _TILE), rows.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
