"""`segjax predict RUN INPUT... --out DIR`."""

import dataclasses
import glob
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image
from rich.progress import track

from segjax import data, inference, models, viz
from segjax import train as training
from segjax.cli import pictures, runs
from segjax.typing import VOID


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Flags of `segjax predict` beside those of the experiment.

    Attributes:
        out: Folder to write: NAME.png with class ids, NAME_overlay.png to look at. Of
            a model that detects: NAME.png with numbered objects, NAME.json with their
            boxes, classes and scores.
        checkpoint: The best by the monitored figure, or the last.
    """

    out: pathlib.Path
    checkpoint: runs.Which = "best"


def main(args: Sequence[str]) -> None:
    """Segments images of any size."""
    folder = runs.folder_argument(args, "predict")
    names, flags = _inputs(args[1:])
    run = runs.load(folder, PredictOptions, flags, prog=f"segjax predict {folder} ...")
    images = list(_images(names))
    _check_distinct(images)
    write = _writer(run)
    out = run.options.out
    out.mkdir(parents=True, exist_ok=True)
    for path in track(images, "Predicting", transient=True):
        write(data.read_image(path), out / path.stem)
    kind = "detections" if pictures.detects(run.experiment) else "label maps"
    print(f"{len(images)} {kind} and overlays: {out}")


def _writer(run: runs.Run) -> Callable[[np.ndarray, pathlib.Path], None]:
    """`(image, path without suffix)` to what it says, and to what it looks like."""
    apply, variables = run.experiment.model.apply, training.variables(run.state)
    classes = run.experiment.data.classes
    if pictures.detects(run.experiment):
        detect = inference.make_detector(apply, variables)

        def objects(image: np.ndarray, path: pathlib.Path) -> None:
            (found,) = models.instances(detect(image))
            _write_objects(path, found, classes)
            picture = viz.instances(image, pictures.sure(found), classes=classes)
            Image.fromarray(picture).save(f"{path}_overlay.png")

        return objects

    predict = inference.make_predictor(apply, variables)
    colours = viz.palette(len(classes))

    def regions(image: np.ndarray, path: pathlib.Path) -> None:
        label = inference.labels(predict(image))
        _write_label(path.with_name(f"{path.name}.png"), label, colours)
        Image.fromarray(viz.overlay(image, label, colours)).save(f"{path}_overlay.png")

    return regions


def _inputs(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the words before the first flag from the flags."""
    first = next((i for i, a in enumerate(args) if a.startswith("-")), len(args))
    names, flags = list(args[:first]), list(args[first:])
    if not names and "--help" not in flags and "-h" not in flags:
        raise ValueError(
            "segjax predict needs images, folders or globs after the run folder. "
            "Try segjax predict runs/demo photo.jpg --out predictions."
        )
    return names, flags


def _images(names: Sequence[str]) -> Iterator[pathlib.Path]:
    """Images in the order given; folders and globs in alphabetical order."""
    for name in names:
        path = pathlib.Path(name)
        if path.is_dir():
            found = [p for p in sorted(path.iterdir()) if _is_image(p)]
        elif path.exists():
            found = [path]
        else:
            found = [pathlib.Path(p) for p in sorted(glob.glob(name, recursive=True))]
            found = [p for p in found if _is_image(p)]
        if not found:
            kinds = ", ".join(data.IMAGE_SUFFIXES)
            raise ValueError(
                f"{name} holds no image. Give images ({kinds}), folders or globs."
            )
        yield from found


def _is_image(path: pathlib.Path) -> bool:
    return path.is_file() and path.suffix.lower() in data.IMAGE_SUFFIXES


def _check_distinct(images: Sequence[pathlib.Path]) -> None:
    """Results are named by the stem: two images must not share one."""
    seen: dict[str, pathlib.Path] = {}
    for path in images:
        other = seen.setdefault(path.stem, path)
        if other != path:
            raise ValueError(
                f"{other} and {path} would both be written as {path.stem}.png. "
                f"Predict them into two folders."
            )


def _write_label(path: pathlib.Path, label: np.ndarray, colours: np.ndarray) -> None:
    """A PNG whose pixels are class ids and which viewers show in colour."""
    picture = Image.fromarray(label)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    table[VOID] = 255
    picture.putpalette(table.tobytes())
    picture.save(path)


def _write_objects(
    path: pathlib.Path, found: Mapping[str, np.ndarray], classes: Sequence[str]
) -> None:
    """NAME.json with all detections, NAME.png with the numbers of the sure ones.

    In the PNG the object that lies on top has its place in the list, from 1.
    """
    rows = [
        {
            "class": classes[k],
            "score": round(score, 4),
            "box": [round(edge, 2) for edge in box],
        }
        for k, score, box in zip(
            found["classes"].tolist(),
            found["scores"].tolist(),
            found["boxes"].tolist(),
            strict=True,
        )
    ]
    training.write_json(path.with_name(f"{path.name}.json"), {"objects": rows})
    masks = pictures.sure(found)["masks"] >= 0.5
    numbers = np.zeros(masks.shape[1:], np.uint16)
    for number in range(len(masks), 0, -1):
        numbers[masks[number - 1]] = number
    Image.fromarray(numbers).save(path.with_name(f"{path.name}.png"))
