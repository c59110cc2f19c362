"""What a run looks like: sample pictures and the report."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from segjax import inference, ops, viz
from segjax import train as training
from segjax.cli import runs
from segjax.files import writing
from segjax.typing import Batch, PyTree


def draw_samples(experiment: training.Experiment, run: pathlib.Path, step: int) -> None:
    """Writes RUN/samples/*.png, and the same pictures for TensorBoard.

    The first images of the split that is reported, as the best checkpoint sees them:
    image, truth and prediction side by side. Of several processes all read the
    checkpoint, and the first one draws.

    Args:
        experiment: What was trained.
        run: The run folder.
        step: Of the best checkpoint, as `result.json` has it.
    """
    state = runs.state_of(experiment, run, step)
    if jax.process_index() > 0:
        return
    paint = _painter(experiment, training.variables(state))
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    split = training.final_split(experiment.data.splits)
    batches = experiment.data.eval_batches(split, batch_size=1)
    board = training.Board(run / "tensorboard")
    with contextlib.closing(batches), board:
        first = itertools.islice(batches, experiment.config.samples)
        for number, batch in enumerate(first):
            picture = paint(batch)
            with writing.whole(folder / f"{number:02d}.png") as temporary:
                Image.fromarray(picture).save(temporary, "PNG")
            board.add_image(f"samples/{number:02d}", picture, step)


def _painter(
    experiment: training.Experiment, variables: PyTree
) -> Callable[[Batch], np.ndarray]:
    """`stored batch of one -> image | truth | prediction`, by what the model gives."""
    predict = inference.make_predictor(experiment.forward, variables)
    classes = experiment.data.classes
    colors = viz.palette(len(classes))

    def paint(batch: Batch) -> np.ndarray:
        image, label, valid = unpadded(batch, 0)
        found = predict(image)
        if isinstance(found, dict):
            truth = true_objects(batch, 0)
            sure = inference.confident(found)
            return viz.instance_triptych(image, truth, sure, classes=classes)
        return viz.triptych(
            image,
            label,
            inference.labels(found),
            valid=valid,
            palette=colors,
            classes=classes,
        )

    return paint


def true_objects(batch: Batch, row: int) -> dict[str, np.ndarray]:
    """The objects of one row, with masks of the image's size: see `viz.instances`."""
    height, width = np.asarray(batch["size"][row]).tolist()
    present = np.asarray(batch["present"][row])
    true = {
        k: np.asarray(batch[k][row])[present] for k in ("boxes", "classes", "masks")
    }
    return true | {"masks": true["masks"][:, :height, :width]}


def unpadded(batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, label, valid) of one row of a stored batch, without its padding.

    A batch without `size` is cut where its last valid pixels are. One without `label`
    has label 0 and nothing valid.
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
    """Writes RUN/report.html from what the folder holds."""
    return viz.write_report(run)
