"""What a run looks like: sample pictures and the report."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np
from PIL import Image

from segjax import inference, models, viz
from segjax import train as training
from segjax.cli import runs
from segjax.typing import Batch, PyTree


def draw_samples(experiment: training.Experiment, run: pathlib.Path) -> None:
    """Writes RUN/samples/*.png, and the same pictures for TensorBoard.

    The first images of the split that is reported, as the best checkpoint sees them:
    image, truth and prediction side by side. Of several processes all read the
    checkpoint, and the first one draws.
    """
    state = runs.state_of(experiment, run)
    if jax.process_index() > 0:
        return
    paint = _painter(experiment, training.variables(state))
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    split = training.final_split(experiment.data.splits)
    batches = experiment.data.eval_batches(split, batch_size=1)
    step = int(state.step)
    board = training.Board(run / "tensorboard")
    with contextlib.closing(batches), board:
        first = itertools.islice(batches, experiment.config.samples)
        for number, batch in enumerate(first):
            picture = paint(batch)
            Image.fromarray(picture).save(folder / f"{number:02d}.png")
            board.add_image(f"samples/{number:02d}", picture, step)


def _painter(
    experiment: training.Experiment, variables: PyTree
) -> Callable[[Batch], np.ndarray]:
    """`batch of one -> image | truth | prediction`, by what the model gives."""
    apply, classes = experiment.model.apply, experiment.data.classes
    if detects(experiment):
        detect = inference.make_detector(apply, variables)

        def objects(batch: Batch) -> np.ndarray:
            height, width = np.asarray(batch["size"][0]).tolist()
            image = np.asarray(batch["image"][0])[:height, :width]
            (found,) = models.instances(detect(image))
            truth = _true_objects(batch, (height, width))
            return viz.instance_triptych(image, truth, sure(found), classes=classes)

        return objects

    predict = inference.make_predictor(apply, variables)
    colours = viz.palette(len(classes))

    def regions(batch: Batch) -> np.ndarray:
        image, label, valid = unpadded(batch, 0)
        predicted = inference.labels(predict(image))
        return viz.triptych(
            image, label, predicted, valid=valid, palette=colours, classes=classes
        )

    return regions


def detects(experiment: training.Experiment) -> bool:
    """Whether the model finds objects, rather than a class for each pixel."""
    return isinstance(experiment.model, models.MaskRCNN)


def sure(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The detections that are more likely right than wrong: those worth a look."""
    kept = found["scores"] >= 0.5
    return {name: x[kept] for name, x in found.items()}


def _true_objects(batch: Batch, size: tuple[int, int]) -> dict[str, np.ndarray]:
    present = np.asarray(batch["present"][0])
    true = {k: np.asarray(batch[k][0])[present] for k in ("boxes", "classes", "masks")}
    return true | {"masks": true["masks"][:, : size[0], : size[1]]}


def write_report(run: pathlib.Path) -> pathlib.Path:
    """Writes RUN/report.html from what the folder holds."""
    return viz.write_report(run)


def unpadded(batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, label, valid) of one row, without the padding below and to the right."""
    valid = np.asarray(batch["valid"][row])
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    height = rows[-1] + 1 if rows.size else valid.shape[0]
    width = columns[-1] + 1 if columns.size else valid.shape[1]
    part = np.s_[:height, :width]
    image, label = (np.asarray(batch[name][row])[part] for name in ("image", "label"))
    return image, label, valid[part]
