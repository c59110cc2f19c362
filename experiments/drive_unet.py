"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on vessels of the retina (DRIVE).

The same network and schedule with one of several losses, to compare them.

    segjax train experiments/drive_unet.py --source DIR --loss ce-dice
    segjax seeds experiments/drive_unet.py --source DIR --seeds 0 1 2 3 4 --loss ce

Result on the 20 test images, five seeds: Dice of vessels 0.814 ± 0.003, with --loss ce
0.804 ± 0.003; 2 CPU cores, 6 min a run. Scores are of pixels inside the field of view.
The other losses are not measured yet.
"""

import pathlib
from collections.abc import Mapping
from typing import Literal

import optax

from segjax import cli, data, losses, metrics, models, train
from segjax.typing import Objective

OBJECTIVES: Mapping[str, Objective] = {
    "ce": losses.semantic(ce=(1.0, losses.cross_entropy)),
    "ce-dice": losses.semantic(
        ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
    ),
    "focal": losses.semantic(focal=(1.0, losses.focal)),
    "tversky": losses.semantic(tversky=(1.0, losses.tversky)),
    "lovasz": losses.semantic(
        ce=(1.0, losses.cross_entropy), lovasz=(1.0, losses.lovasz_softmax)
    ),
    "cldice": losses.semantic(
        dice=(0.5, losses.soft_dice), cldice=(0.5, losses.soft_cldice)
    ),
    "boundary": losses.semantic(
        dice=(1.0, losses.soft_dice), boundary=(0.1, losses.boundary)
    ),
}
"""The objectives by the names of --loss."""


def experiment(
    *,
    source: pathlib.Path,
    loss: Literal[
        "ce", "ce-dice", "focal", "tversky", "lovasz", "cldice", "boundary"
    ] = "ce-dice",
    steps: int = 1_500,
    batch_size: int = 8,
    size: int = 128,
    width: int = 16,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with DRIVE.zip, or unpacked.
        loss: Cross-entropy; with soft Dice or Lovász-softmax; focal or Tversky loss
            alone; soft Dice with half soft clDice, or with a tenth of boundary loss.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        width: Channels of the finest scale, doubled at each of the three coarser ones.
        learning_rate: Peak of the cosine schedule.
        seed: Seeds initialization, augmentation and the data order.
    """
    retinas = data.drive(source)
    warmup = min(100, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 5),
            monitor="dice/vessel",
        ),
        data=data.Pipeline(dataset=retinas, size=size),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.rotate90,
            data.augment.elastic(sigma=8.0, grid=4),
            data.augment.color_jitter(),
        ),
        model=models.UNet(
            num_classes=len(retinas.classes),
            widths=tuple(width * 2**i for i in range(4)),
            norm=models.layers.batch_norm,
        ),
        objective=OBJECTIVES[loss],
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
        ),
        metric=metrics.combine(
            metrics.semantic(retinas.classes),
            metrics.ranking(retinas.classes),
            metrics.surface(retinas.classes),
            metrics.centerline_dice(retinas.classes),
        ),
    )


if __name__ == "__main__":
    cli.run(experiment)
