"""U-Net on your own images and masks."""

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import optax

from segjax import data, interop, losses, metrics, models, ops, planning, train


def experiment(
    *,
    source: pathlib.Path,
    ids: tuple[int, ...] | None = None,
    colors: pathlib.Path | None = None,
    group: str | None = None,
    folds: int | None = None,
    fold: int = 0,
    encoder: Literal["conv", "efficientnet-lite0"] = "conv",
    resize: int | None = None,
    size: int = 128,
    depth: int = 5,
    width: int = 16,
    class_weights: tuple[float, ...] | None = None,
    steps: int = 1_000,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    encoder_rate: float = 0.2,
    num_workers: int = 0,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with images/ and masks/.
        ids: The mask values of class 0, 1, ..., such as 0 255; none if they are 0, 1,
            ... already.
        colors: Table of the colors of the masks, rows r,g,b,name; by default, the
            classes.csv of the folder, or the colors that are found.
        group: Regular expression: images in whose names it matches the same text, such
            as a patient's number, are in the same split.
        folds: Cross-validation by this many parts; none for one split.
        fold: The part that is validated, from 0.
        encoder: Convolutions from scratch, or a pretrained EfficientNet-Lite0.
        resize: Longest side, in pixels, of the median image as the network sees it; all
            images are shrunk by the whole factor that comes nearest, and predictions
            are enlarged to the size of the image. None does not shrink.
        size: Side of the training crops, in pixels of the images as they are.
        depth: Scales of the network, without a pretrained encoder.
        width: Channels of the finest scale; doubled at each coarser one.
        class_weights: Factor of each class in the cross-entropy; none for ones.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        learning_rate: Peak of the cosine schedule.
        encoder_rate: Learning rate of a pretrained encoder, relative to the decoder's.
        num_workers: Processes that read and decode; 0 reads in threads.
        seed: Seeds initialization, augmentation and the data order.
    """
    mine = dataset(source, ids=ids, colors=colors, group=group, folds=folds, fold=fold)
    median = planning.median_image(mine)
    factor = planning.shrink_factor(median, resize)
    is_large = math.prod(median) > 2**23
    pretrained = encoder == "efficientnet-lite0"
    scales = 5 if pretrained else depth
    model = models.UNet(
        num_classes=len(mine.classes),
        widths=tuple(width * 2**i for i in range(scales)),
        norm=models.layers.batch_norm,
        encoder=models.encoders.efficientnet_lite0() if pretrained else None,
    )
    cross_entropy = functools.partial(losses.cross_entropy, class_weights=class_weights)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 10),
        ),
        data=data.Pipeline(
            dataset=mine,
            size=size,
            multiple=32 * factor,
            num_workers=num_workers,
            # So that photographs of 20 megapixels need less than 3 GB.
            num_threads=1 if is_large else 2,
            cache_bytes=2**28,
        ),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.scale_and_crop(minimum=0.7, maximum=1.5),
            data.augment.color_jitter(),
        ),
        model=model if factor == 1 else models.Shrunk(model, factor),
        preprocess=models.encoders.EFFICIENTNET_LITE if pretrained else ops.unit_range,
        init_from=interop.efficientnet_lite0_imagenet() if pretrained else None,
        objective=losses.semantic(
            ce=(1.0, cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        optimizer=optimizer(
            learning_rate, steps, {"encoder": encoder_rate} if pretrained else {}
        ),
        metric=metrics.semantic(mine.classes),
    )


def optimizer(
    peak: float, steps: int, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """AdamW with a cosine schedule, times factors for modules."""
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, min(50, steps // 10), steps)
    made = optax.chain(
        optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
    )
    return optax.chain(made, train.scale_updates(factors))


def dataset(source: pathlib.Path, **options: Any) -> data.Dataset:
    """Reads a folder of images and masks; the options are those of `data.folder`."""
    return data.folder(source, **options)
