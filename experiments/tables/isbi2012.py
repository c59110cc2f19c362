"""ISBI 2012, five folds: Dice and Rand scores of a U-Net on the slices held out.

    python experiments/tables/isbi2012.py --source DIR

Trains what is missing and writes isbi2012.md and .csv beside this file: the scores
after the last update, since the best checkpoint is chosen on the same slices. With
--quick, runs take a fifth of the time, and the files are isbi2012-quick.*.

NVIDIA's figure is another kind of Dice, which is computed too: see `nvidia_dice`.
"""

import json
import pathlib
import shlex
from collections.abc import Sequence

import jax
import numpy as np
import rows

import segjax
from segjax import inference, train
from segjax.cli import runs

SCRIPT = "isbi2012_unet.py"
ENCODER = ("--encoder", "efficientnet-lite0")
METRICS = ("mean_dice", "dice/membrane", "dice/cell", "best_v_rand_per_image")
TABLE = rows.Table(
    name="isbi2012",
    rows=[
        rows.Row("unet", SCRIPT),
        rows.Row("efficientnet-scratch", SCRIPT, ENCODER),
        rows.Row("efficientnet-pretrained", SCRIPT, (*ENCODER, "--pretrained")),
    ],
    metrics=METRICS,
    seeds=(0, 1, 2, 3, 4),
    quick=("--steps", "160"),
    published=(
        "NVIDIA, U-Net Medical (TensorFlow 2), paper geometry, 6,400 batches of 8: "
        "Dice 0.8902, mean of five folds (its README). By its code, that is "
        "nvidia_dice: of probabilities, over slices shrunk to 388x388. Its folds are "
        "of shuffled slices, ours of six neighbors.",
    ),
    each="--fold",
)


def main(args: Sequence[str] | None = None) -> None:
    """Trains what is missing, and writes the table."""
    chosen = rows.options(TABLE, __doc__, args)
    heads = ("row", "fold", *METRICS, "nvidia_dice")
    table, cells, lines = [], [], []
    for row in rows.trained(TABLE, chosen):
        folders = [rows.run_folder(chosen, row, fold) for fold in chosen.seeds]
        values = [scores(folder) for folder in folders]
        for fold, each in zip(chosen.seeds, values, strict=True):
            table.append([row.name, fold, *each])
            cells.append([row.name, str(fold), *(f"{value:.4f}" for value in each)])
        means = [rows.mean_and_deviation(each) for each in zip(*values, strict=True)]
        cells.append([f"**{row.name}**", "mean ± std", *means])
        hours = sum(run["seconds"] for run in segjax.results(*folders)) / 3600
        shown = shlex.join(rows.published_command(TABLE, chosen, row, "K"))
        lines.append(f"- {row.name}: {hours:.1f} hours in all, `{shown}`")
    if not table:
        return
    rows.write_csv(rows.written(TABLE, chosen, ".csv"), heads, table)
    lines = [*rows.markdown(heads, cells), "", *lines, "", "Published:", ""]
    lines += [*(f"- {line}" for line in TABLE.published), ""]
    path = rows.written(TABLE, chosen, ".md")
    path.write_text("\n".join(lines))
    print(f"Written: {path}")


def scores(folder: pathlib.Path) -> list[float]:
    """The scores of a run after its last update."""
    found = last_scores(folder)
    return [*(found[metric] for metric in METRICS), nvidia_dice(folder)]


def last_scores(run: pathlib.Path) -> dict[str, float]:
    """The scores after the last update."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "eval"]
    return next(r for r in reversed(records) if not r.get("final"))


def nvidia_dice(folder: pathlib.Path) -> float:
    """Dice as NVIDIA's U-Net Medical computes it, after the last update of a run.

    The mean, over slices and both classes, of 2 sum(p t) / sum(p^2 + t^2), where p are
    probabilities and t is 0 or 1. Slices are shrunk to 388x388 pixels; here, those are
    the probabilities and the truth. Theirs is of runtime/losses.py and
    data_loading/data_loader.py in TensorFlow2/Segmentation/UNet_Medical of
    NVIDIA/DeepLearningExamples.
    """
    experiment = segjax.load(folder).experiment()
    state = runs.state_of(experiment, folder, "last")
    predict = inference.make_predictor(experiment.forward, train.variables(state))
    slices = experiment.data.dataset.splits["validation"]
    return float(np.mean([_soft_dice(predict, slices[i]) for i in range(len(slices))]))


def _soft_dice(predict, example) -> float:
    probabilities = _shrunk(predict(example["image"]))
    cell = _shrunk(np.float32(example["label"])[..., None]) >= 0.5
    truth = np.concatenate([~cell, cell], axis=-1).astype(np.float32)
    return soft_dice(probabilities, truth)


def soft_dice(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The mean over classes of 2 sum(p t) / sum(p^2 + t^2); both are [H, W, C]."""
    shared = (probabilities * truth).sum((0, 1))
    sizes = (probabilities**2 + truth**2).sum((0, 1))
    return float(np.mean(2 * shared / sizes))


def _shrunk(image) -> np.ndarray:
    """As `tf.image.resize`: bilinear, without antialiasing."""
    shape = (388, 388, image.shape[-1])
    return np.asarray(jax.image.resize(image, shape, "linear", antialias=False))


if __name__ == "__main__":
    main()
