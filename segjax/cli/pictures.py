"""What a run looks like: sample pictures and the report."""

import pathlib

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from segjax import inference, viz
from segjax import train as training
from segjax.cli import runs
from segjax.typing import Batch


def draw_samples(experiment: training.Experiment, run: pathlib.Path) -> None:
    """Writes RUN/samples/*.png, and the same pictures for TensorBoard.

    The first images of the split that is reported, as the best checkpoint sees them:
    image, truth and prediction side by side.
    """
    data = experiment.data
    state = runs.state_of(experiment, run)
    predict = inference.make_predictor(
        experiment.model.apply, training.variables(state)
    )
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    colours = viz.palette(len(data.classes))
    board = SummaryWriter(str(run / "tensorboard"))
    for number, (image, label, valid) in enumerate(_examples(experiment)):
        picture = viz.triptych(
            image,
            label,
            inference.labels(predict(image)),
            valid=valid,
            palette=colours,
            classes=data.classes,
        )
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
        name = f"samples/{number:02d}"
        board.add_image(name, picture, int(state.step), dataformats="HWC")
    board.close()


def write_report(run: pathlib.Path) -> pathlib.Path:
    """Writes RUN/report.html from what the folder holds."""
    return viz.write_report(run)


def _examples(experiment: training.Experiment):
    """(image, label, valid) of the first images, without their padding."""
    config, data = experiment.config, experiment.data
    split = training.final_split(data.splits)
    left = config.samples
    for batch in data.eval_batches(split, batch_size=1):
        if not left:
            return
        left -= 1
        yield unpadded(batch, 0)


def unpadded(batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, label, valid) of one row, without the padding below and to the right."""
    valid = np.asarray(batch["valid"][row])
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    height = rows[-1] + 1 if rows.size else valid.shape[0]
    width = columns[-1] + 1 if columns.size else valid.shape[1]
    part = np.s_[:height, :width]
    image, label = (np.asarray(batch[name][row])[part] for name in ("image", "label"))
    return image, label, valid[part]
