"""`segjax predict RUN INPUT... --out DIR`."""

import dataclasses
import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence

import tyro
from PIL import Image
from rich.progress import track

import segjax
from segjax import inference
from segjax.cli import runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Flags of `segjax predict`.

    Attributes:
        out: Folder to write: NAME.png with class ids, NAME_overlay.png to look at. Of
            a model that detects: NAME.png with numbered objects, NAME.json with their
            boxes, classes and scores.
        trust: Execute the run's experiment.py where the model has code of its own.
            Models of segjax's own parts need no code.
    """

    out: pathlib.Path
    trust: bool = False


def main(args: Sequence[str]) -> None:
    """Segments images of any size."""
    folder = runs.folder_argument(args, "predict")
    names, flags = _inputs(args[1:])
    prog = f"segjax predict {folder} ..."
    options = tyro.cli(PredictOptions, args=flags, prog=prog)
    model = _load(folder, trust=options.trust)
    images = list(_images(names))
    _check_distinct(images)
    predictions = model.predict_all(images)
    options.out.mkdir(parents=True, exist_ok=True)
    made = zip(images, predictions, strict=True)
    for path, prediction in track(made, "Predicting", len(images), transient=True):
        prediction.save(options.out / f"{path.stem}.png")
        overlay = Image.fromarray(prediction.overlay())
        overlay.save(options.out / f"{path.stem}_overlay.png")
    detects = model.description["task"] == "instance"
    kind = "detections" if detects else "label maps"
    print(f"{len(images)} {kind} and overlays: {options.out}")


def _load(folder: pathlib.Path, *, trust: bool) -> inference.Model:
    try:
        return segjax.load(folder)
    except inference.NeedsCodeError:
        if not trust:
            raise
    script = folder / inference.SCRIPT
    print(f"note: executing {script}, whose code the model needs.", file=sys.stderr)
    return segjax.load(folder, trust=True)


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
            kinds = ", ".join(inference.SUFFIXES)
            raise ValueError(
                f"{name} holds no image. Give images ({kinds}), folders or globs."
            )
        yield from found


def _is_image(path: pathlib.Path) -> bool:
    return path.is_file() and path.suffix.lower() in inference.SUFFIXES


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
