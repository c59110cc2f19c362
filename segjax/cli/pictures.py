"""Draws the sample images and the report of a run."""

import contextlib
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image, PngImagePlugin

from segjax import data as datasets
from segjax import inference, ops, optional, viz
from segjax import train as training
from segjax.cli import runs
from segjax.files import writing
from segjax.typing import Batch, Data, PyTree

_TILE, _MAX_WHOLE = 1024, 2**22
"""Side of the tiles of large pictures, and pixels of an image that is not large."""


def draw_samples(experiment: training.Experiment, run: pathlib.Path, step: int) -> None:
    """Writes RUN/samples/*.png, and the same images for TensorBoard.

    They show image, truth and prediction of the best checkpoint side by side, for the
    first images of the final split. The images alone are written to RUN/samples_input/,
    for `segjax serve`, if a PNG can hold them as stored. Of several processes all read
    the checkpoint, and the first one draws.

    Args:
        experiment: The experiment.
        run: The run folder.
        step: The step of the best checkpoint, as in `result.json`.
    """
    state = runs.state_of(experiment, run, step)
    if jax.process_index() > 0:
        return
    paint = _painter(experiment, training.variables(state))
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    split = training.final_split(experiment.data.splits)
    name_of = example_names(experiment.data, split)
    batches = experiment.data.eval_batches(split, batch_size=1)
    tensorboard = training.TensorBoardWriter(run / "tensorboard")
    with contextlib.closing(batches), tensorboard:
        first = itertools.islice(batches, experiment.config.samples)
        for number, batch in enumerate(first):
            picture = paint(batch)
            name = name_of(int(batch["index"][0])) if "index" in batch else ""
            _save(picture, folder / f"{number:02d}.png", title=name)
            _write_input(run / "samples_input", number, unpadded(batch, 0)[0])
            tensorboard.add_image(f"samples/{number:02d}", picture, step)


def draw_worst(
    experiment: training.Experiment,
    state: training.TrainState,
    run: pathlib.Path,
    split: str,
    notes: Mapping[int, str],
) -> None:
    """Writes RUN/worst/*.png, in place of those of an earlier evaluation.

    Args:
        experiment: The experiment.
        state: The evaluated state.
        run: The run folder.
        split: The evaluated split.
        notes: A caption for each image to draw, by its position in the split, the worst
            image first.
    """
    paint = _painter(experiment, training.variables(state))
    folder = run / "worst"
    folder.mkdir(exist_ok=True)
    name_of = example_names(experiment.data, split)
    places = {index: place for place, index in enumerate(notes)}
    for index, batch in find_examples(experiment.data, split, set(notes)):
        path = folder / f"{places[index]:02d}.png"
        _save(paint(batch), path, title=name_of(index), note=notes[index])
    for old in folder.glob("*.png"):
        if old.stem not in {f"{place:02d}" for place in range(len(notes))}:
            old.unlink()


def find_examples(
    data: Data, split: str, indices: set[int]
) -> Iterator[tuple[int, Batch]]:
    """Reads examples by their position in a split, as stored batches of one.

    Yields:
        (position, batch), in the order of the split's evaluation.
    """
    left = set(indices)
    with contextlib.closing(data.eval_batches(split, batch_size=1)) as batches:
        for batch in batches if left else ():
            index = int(batch["index"][0])
            if index in left:
                left.remove(index)
                yield index, dict(batch)
            if not left:
                return


def example_names(data: Data, split: str) -> Callable[[int], str]:
    """Returns a function from a position in a split to the example's name.

    Names are empty if the data are not a `Pipeline`.
    """
    if not isinstance(data, datasets.Pipeline):
        return lambda index: ""
    examples = data.dataset.splits[split]
    read = getattr(examples, "name", None)  # Without decoding the image.
    if read is not None:
        return read
    return lambda index: str(examples[index].get("name", ""))


def _save(
    picture: np.ndarray, path: pathlib.Path, *, title: str, note: str = ""
) -> None:
    """Writes a PNG with its captions for the report, which reads them."""
    captions = PngImagePlugin.PngInfo()
    for key, value in (("Title", title), ("Description", note)):
        if value:
            captions.add_itxt(key, value)
    with writing.atomic(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", pnginfo=captions)


def _write_input(folder: pathlib.Path, number: int, image: np.ndarray) -> None:
    """Writes an image as stored, if a PNG that `inference.read_image` reads can."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    if image.shape[-1] not in (1, 3) or pixels.dtype != np.uint8:
        return
    folder.mkdir(exist_ok=True)
    with writing.atomic(folder / f"{number:02d}.png") as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")


def _painter(
    experiment: training.Experiment, variables: PyTree
) -> Callable[[Batch], np.ndarray]:
    """Builds `stored batch of one -> image | truth | prediction`."""
    predict = inference.make_predictor(experiment.forward, variables)
    tiled = inference.sliding_window(
        lambda images: np.stack(
            [np.asarray(x) for x in predict.batch(np.asarray(images))]
        ),
        tile=_TILE,
        reduce=inference.labels,
    )
    classes = experiment.data.classes
    colors = viz.palette(len(classes))

    def paint(batch: Batch) -> np.ndarray:
        image, label, valid = unpadded(batch, 0)
        if label.size > _MAX_WHOLE and "object_mask" not in batch:
            ids: Any = tiled(image[None])[0]  # With bounded memory.
        else:
            found = predict(image)
            if isinstance(found, dict):
                truth = true_objects(batch, 0)
                sure = inference.confident_objects(found)
                return viz.instance_triptych(image, truth, sure, classes=classes)
            ids = inference.labels(found)
        return viz.triptych(
            image, label, ids, valid=valid, palette=colors, classes=classes
        )

    return paint


def true_objects(batch: Batch, row: int) -> dict[str, np.ndarray]:
    """Returns the objects of one row, with masks of the image's size."""
    height, width = np.asarray(batch["size"][row]).tolist()
    object_mask = np.asarray(batch["object_mask"][row])
    true = {
        k: np.asarray(batch[k][row])[object_mask] for k in ("boxes", "classes", "masks")
    }
    return true | {"masks": true["masks"][:, :height, :width]}


def unpadded(batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (image, label, valid) of one row of a stored batch, without its padding.

    A batch without `size` is cropped to its valid pixels. One without `label` has label
    0 and no valid pixel.
    """
    image = np.asarray(batch["image"][row])
    label = batch["label"][row] if "label" in batch else np.zeros(image.shape[:2], int)
    label = np.asarray(label)
    if "valid" in batch:
        valid = np.asarray(batch["valid"][row])
    elif "label" in batch:
        valid = label != ops.ignore_index(label.dtype)
    else:
        valid = np.zeros(label.shape, bool)
    height, width = _size(batch, row, valid)
    part = np.s_[:height, :width]
    return image[part], label[part], valid[part]


def _size(batch: Batch, row: int, valid: np.ndarray) -> tuple[int, int]:
    if "size" in batch:
        height, width = np.asarray(batch["size"][row]).tolist()
        return height, width
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    height = rows[-1] + 1 if rows.size else valid.shape[0]
    width = columns[-1] + 1 if columns.size else valid.shape[1]
    return int(height), int(width)


def write_report(run: pathlib.Path) -> pathlib.Path:
    """Writes RUN/report.html from the files of the run."""
    return viz.write_report(run)


@contextlib.contextmanager
def optional_report() -> Iterator[None]:
    """Skips the rest of its block, with a note, where a package of a report is missing.

    What was trained is whole without a report.
    """
    try:
        yield
    except optional.MissingPackageError as error:
        print(f"note: no report is written: {error}", file=sys.stderr)
