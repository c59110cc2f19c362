"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on the paper's EM membranes.

ISBI 2012 in five folds of six slices; a run trains on four folds, validates on one.

    segjax train experiments/isbi2012_unet.py --source DIR --fold 4

Result over the five folds, after the last update: mean Dice 0.876 ± 0.005, V_rand 0.898
± 0.032; Dice as NVIDIA's U-Net Medical computes it 0.899 ± 0.005, where that has 0.890.
2 CPU cores, 6 min a fold.
"""

import pathlib
from typing import Literal

import optax

from segjax import cli, data, losses, metrics, models, train


def experiment(
    *,
    source: pathlib.Path,
    fold: int = 4,
    steps: int = 800,
    batch_size: int = 4,
    size: int = 192,
    width: int = 16,
    padding: Literal["same", "valid"] = "same",
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with isbi2012.zip, or unpacked.
        fold: The fold held out for validation, 0 to 4.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels; 572 in the paper.
        width: Channels of the finest scale, doubled at each of the four coarser ones;
            64 in the paper.
        padding: Padding of the convolutions; "valid" in the paper.
        learning_rate: Peak of the cosine schedule.
        seed: Seeds initialization, augmentation and the data order.
    """
    membranes = data.isbi2012(source, fold=fold)
    warmup = min(50, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 5),
            monitor="mean_dice",
        ),
        data=data.Pipeline(dataset=membranes, size=size),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.rotate90,
            data.augment.elastic(sigma=10.0, grid=3),
            data.augment.color_jitter(),
        ),
        model=models.UNet(
            num_classes=len(membranes.classes),
            widths=tuple(width * 2**i for i in range(5)),
            norm=models.layers.batch_norm,
            padding=padding,
        ),
        objective=losses.semantic(
            ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
        ),
        metric=metrics.combine(
            metrics.semantic(membranes.classes), metrics.best_threshold_rand()
        ),
    )


if __name__ == "__main__":
    cli.run(experiment)
