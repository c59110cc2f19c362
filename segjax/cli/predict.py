"""`segjax predict RUN INPUT... --out DIR`."""

import dataclasses
import glob
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from rich.progress import track

from segjax import data, inference, viz
from segjax import train as training
from segjax.cli import runs
from segjax.typing import VOID


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Flags of `segjax predict` beside those of the experiment.

    Attributes:
        out: Folder to write: NAME.png with class ids, NAME_overlay.png to look at.
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
    predict = inference.make_predictor(
        run.experiment.model.apply, training.variables(run.state)
    )
    classes = run.experiment.data.classes
    colours = viz.palette(len(classes))
    out = run.options.out
    out.mkdir(parents=True, exist_ok=True)
    for path in track(images, "Predicting", transient=True):
        image = data.read_image(path)
        label = inference.labels(predict(image))
        _write_label(out / f"{path.stem}.png", label, colours)
        overlay = viz.overlay(image, label, colours)
        Image.fromarray(overlay).save(out / f"{path.stem}_overlay.png")
    print(f"{len(images)} label maps and overlays: {out}")


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
