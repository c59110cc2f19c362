"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597) on street scenes.

CamVid, 11 classes, 360x480; void pixels are ignored, as in published results.

    segjax train experiments/camvid_unet.py --source DIR

Not measured with these defaults, which need a GPU. A short run, with --steps 400
--batch-size 4 --size 176 240 --width 16, has test mean IoU 0.210, one seed; 2 CPU
cores, 10 min (busy machine). After four epochs of quarter images, rare classes have IoU
0.
"""

import functools
import pathlib

import optax

from segjax import cli, data, losses, metrics, models, train

# Classes with fewer than 1 in 50 pixels, weighted by --rare.
RARE = ("pole", "sign", "fence", "pedestrian", "bicyclist")


def experiment(
    *,
    source: pathlib.Path,
    steps: int = 20_000,
    batch_size: int = 8,
    size: tuple[int, int] = (352, 480),
    width: int = 32,
    learning_rate: float = 1e-3,
    rare: float = 2.0,
    num_workers: int = 0,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with CamVid.zip, or unpacked.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Height and width of the training crops, in pixels.
        width: Channels of the finest scale; doubled at each of the four coarser ones.
        learning_rate: Peak of the cosine schedule.
        rare: Weight of rare classes in the cross entropy; others have weight 1.
        num_workers: Processes that read and decode; 0 reads in threads.
        seed: Seeds initialization, augmentation and the data order.
    """
    streets = data.camvid(source)
    warmup = min(500, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    weights = tuple(rare if name in RARE else 1.0 for name in streets.classes)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 10),
        ),
        data=data.Pipeline(dataset=streets, size=size, num_workers=num_workers),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.scale_and_crop(minimum=0.7, maximum=1.5),
            data.augment.color_jitter(),
        ),
        model=models.UNet(
            num_classes=len(streets.classes),
            widths=tuple(width * 2**i for i in range(5)),
            norm=models.layers.batch_norm,
        ),
        objective=losses.semantic(
            ce=(1.0, functools.partial(losses.cross_entropy, class_weights=weights)),
            dice=(1.0, losses.soft_dice),
        ),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.inject_hyperparams(optax.adamw)(rate, weight_decay=1e-4),
        ),
        metric=metrics.semantic(streets.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
