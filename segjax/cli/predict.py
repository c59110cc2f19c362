"""`segjax predict RUN INPUT... --out DIR`."""

import dataclasses
import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence

from PIL import Image
from rich.progress import track

import segjax
from segjax import inference
from segjax.cli import flags as cli_flags
from segjax.cli import runs
from segjax.errors import UserError
from segjax.files import limits, writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Flags of `segjax predict`.

    Attributes:
        out: The folder to write: NAME.png with class ids, NAME_overlay.png to look at.
            For a detector: NAME.png with numbered objects, NAME.json with their boxes,
            classes and scores.
        trust: Execute the run's experiment.py if the model needs its code. Models made
            of segjax's own parts need none.
        max_pixels: The largest height times width of an image. A network reads it as a
            whole, and a small file can contain a huge image.
    """

    out: pathlib.Path
    trust: bool = False
    max_pixels: int = limits.PREDICT_PIXELS


def main(args: Sequence[str]) -> None:
    """Segments images of any size; exits with 1 if some failed."""
    folder = runs.folder_argument(args, "predict")
    names, flags = _inputs(args[1:])
    prog = f"segjax predict {folder} ..."
    options: PredictOptions = cli_flags.read(PredictOptions, flags, prog=prog)
    if options.max_pixels < 1:
        raise UserError(f"--max-pixels must be at least 1, got {options.max_pixels}.")
    images = list(dict.fromkeys(_images(names)))
    model = _load(folder, trust=options.trust)
    detects = model.description["task"] == "instance"
    _check_outputs(images, options.out, [".json"] if detects else [])
    predictions = model.predict_each(images, max_pixels=options.max_pixels)
    options.out.mkdir(parents=True, exist_ok=True)
    made = zip(images, predictions, strict=True)
    failed: list[ValueError] = []
    for path, prediction in track(made, "Predicting", len(images), transient=True):
        if isinstance(prediction, ValueError):
            failed.append(prediction)
        else:
            _write(prediction, options.out / f"{path.stem}.png")
    kind = "detections" if detects else "label maps"
    print(f"{len(images) - len(failed)} {kind} and overlays: {options.out}")
    for error in failed:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    if failed:
        sys.exit(1)


def _write(prediction: inference.Prediction, path: pathlib.Path) -> None:
    prediction.save(path)
    overlay = Image.fromarray(prediction.overlay())
    with writing.atomic(path.with_name(f"{path.stem}_overlay.png")) as temporary:
        overlay.save(temporary, "PNG")


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
    """Splits the arguments at the first flag."""
    first = next((i for i, a in enumerate(args) if a.startswith("-")), len(args))
    names, flags = list(args[:first]), list(args[first:])
    if not names and "--help" not in flags and "-h" not in flags:
        raise UserError(
            "segjax predict needs images, folders or globs after the run folder. "
            "Try segjax predict runs/demo photo.jpg --out predictions."
        )
    return names, flags


def _images(names: Sequence[str]) -> Iterator[pathlib.Path]:
    """Yields images in the given order, those of folders and globs sorted by name."""
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
            raise UserError(
                f"{name} holds no image. Give images ({kinds}), folders or globs."
            )
        yield from found


def _is_image(path: pathlib.Path) -> bool:
    return path.is_file() and path.suffix.lower() in inference.SUFFIXES


def _check_outputs(
    images: Sequence[pathlib.Path], out: pathlib.Path, others: Sequence[str]
) -> None:
    """Raises a ValueError if a result would overwrite an image or another result.

    Args:
        images: The images; results are named by their stems.
        out: The folder of the results.
        others: Suffixes of results beside .png and _overlay.png.
    """
    made: dict[str, pathlib.Path] = {}
    for path in images:
        # Through links too: what lies there may be the only copy.
        if out.resolve() in (path.parent.resolve(), path.resolve().parent):
            raise UserError(
                f"{path} lies in {out}, where results would be written, perhaps over "
                f"images. Give --out another folder."
            )
        for end in (".png", "_overlay.png", *others):
            name = f"{path.stem}{end}"
            other = made.setdefault(name, path)
            if other != path:
                raise UserError(
                    f"{other} and {path} would both be written as {name}. Predict them "
                    f"into two folders."
                )
