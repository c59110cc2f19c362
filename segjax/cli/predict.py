"""`segjax predict RUN INPUT... --out DIR`."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import jax

from segjax import inference
from segjax.cli import flags as cli_flags
from segjax.cli import (
    predict_files,
    predict_inputs,
    predict_loop,
    predict_models,
    predict_run_files,
    predict_work,
    runs,
    usage,
)
from segjax.cli.predict_work import Work
from segjax.errors import UserError
from segjax.files import limits

_NOTES = 5

_INPUTS = (
    "INPUT: images (PNG, JPEG, TIFF, BMP, GIF, WebP, .npy, .npz, .dcm), folders with "
    "their subfolders, or globs."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Flags of `segjax predict`.

    Attributes:
        out: The folder to write: NAME.png with class ids (numbers of objects, for a
            detector), NAME_color.png and NAME_overlay.png to look at.
        resume: Skip images whose results are in --out.
        tile: Predict in tiles of this many pixels, whose memory does not grow with the
            image; 0 for whole images. By default tiles of 1024 where a whole image
            would need too much memory, with a note. With a number, TIFF files beyond
            --max-pixels are read in windows, and only NAME.tif is written for them
            (objects, for a detector).
        overlap: Smallest fraction of a tile that neighbors share.
        tta: Average predictions over the eight flips and quarter turns.
        ensemble: Further runs, whose probabilities are averaged with those of RUN.
        classes: Names of the classes to keep; the others become background.
        min_area: Regions and objects of fewer pixels are removed.
        objects: Write the objects of each image, NAME.json (COCO) and NAME.geojson, and
            of all images, objects.json and objects.csv. Detectors always do. Objects
            are connected components, or made by the watershed of RUN/instances.json.
        probabilities: Write NAME_probabilities.npz, float16.
        uncertainty: Write NAME_uncertainty.npz, float16: entropy, and the disagreement
            of an ensemble.
        calibrated: Use the temperatures fitted by `segjax calibrate`.
        trust: Execute the run's experiment.py if the model needs its code. Models made
            of segjax's own parts need none.
        max_pixels: The largest height times width of an image. A network reads it as a
            whole, unless --tile is given, and a small file can contain a huge image.
    """

    out: pathlib.Path
    resume: bool = False
    tile: int | None = None
    overlap: float = 0.25
    tta: bool = False
    ensemble: tuple[pathlib.Path, ...] = ()
    classes: tuple[str, ...] = ()
    min_area: int = 0
    objects: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    calibrated: bool = False
    trust: bool = False
    max_pixels: int = limits.PREDICT_PIXELS

    def __post_init__(self):
        for name, least in (("max_pixels", 1), ("tile", 0), ("min_area", 0)):
            if (getattr(self, name) or 0) < least:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{flag} must be at least {least}, got {getattr(self, name)}."
                )


def main(args: Sequence[str]) -> None:
    """Segments images of any size; exits with 1 if some failed."""
    usage.print_if_asked(
        args, "segjax predict RUN INPUT...", PredictOptions, note=_INPUTS
    )
    folder = runs.folder_argument(args, "predict")
    names, flags = _inputs(args[1:])
    prog = f"segjax predict {folder} ..."
    options: PredictOptions = cli_flags.read(PredictOptions, flags, prog=prog)
    paths = predict_inputs.find_images(names, options.out)
    models = [
        runs.load_model(x, trust=options.trust) for x in (folder, *options.ensemble)
    ]
    work = _make_work(models, options)
    channels = models[0].description["image"]["channels"]
    suffixes = predict_files.suffixes_of(work)
    jobs = predict_inputs.make_jobs(paths, options.out, suffixes, channels=channels)
    failed, notes = predict_loop.predict_all(work, jobs, options)
    if "json" in "".join(suffixes) and jax.process_index() == 0:
        predict_files.write_tables(jobs, options.out, channels=channels)
    kind = "detections" if work.detect is not None else "label maps"
    print(f"{len(jobs) - len(failed)} {kind} and overlays: {options.out}")
    _report(failed, notes)


def _report(failed: Sequence[ValueError], notes: Sequence[str]) -> None:
    for note in notes[:_NOTES]:
        print(f"note: {note}", file=sys.stderr)
    if len(notes) > _NOTES:
        print(f"note: and {len(notes) - _NOTES} more such files.", file=sys.stderr)
    for error in failed:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    if failed:
        sys.exit(1)


def _make_work(models: Sequence[inference.Model], options: PredictOptions) -> Work:
    names = models[0].classes
    if unknown := sorted(set(options.classes) - set(names)):
        raise UserError(
            f"--classes needs names of {', '.join(names)}, got {', '.join(unknown)}."
        )
    detects = models[0].description["task"] == "instance"
    if detects and (options.probabilities or options.uncertainty):
        raise UserError(
            "--probabilities and --uncertainty are of models that label pixels, and "
            f"{models[0].folder} detects objects. Leave them out."
        )
    if any((m.description["task"] == "instance") != detects for m in models):
        raise UserError("--ensemble needs runs of one task, got detectors and others.")
    kept = tuple(names.index(name) for name in options.classes)
    settings = predict_work.Settings(
        tile=options.tile,
        overlap=options.overlap,
        tta=options.tta,
        kept=kept or None,
        min_area=options.min_area,
        objects=options.objects,
        probabilities=options.probabilities,
        uncertainty=options.uncertainty,
    )
    folders = [model.folder for model in models]
    values = None
    if options.calibrated:
        values = [predict_run_files.temperature_of(folder) for folder in folders]
    return predict_models.make_work(models, settings, temperatures=values)


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
