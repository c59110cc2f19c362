"""U-Net with a border class and a watershed: instance segmentation of nuclei.

Data Science Bowl 2018, fluorescence images (541 of stage1_train, 53 of stage1_test).
The network predicts background, inside and border (the outermost pixels of each
nucleus, as in Caicedo et al., 2019); a seeded watershed makes nuclei of them.

    segjax train experiments/dsb2018_unet_instances.py --source DIR --run RUN
    segjax seeds experiments/dsb2018_unet_instances.py --source DIR --seeds 0 1 2
    python experiments/dsb2018_instances_table.py RUN/seed-0 ... --source DIR

The last command chooses the settings of the watershed on validation, writes
instances.json, which `segjax predict --objects` reads, and prints the scores.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax import cli, data, inference, losses, metrics, models, train

CLASSES = ("background", "inside", "border")


def experiment(
    *,
    source: pathlib.Path,
    steps: int = 6_000,
    batch_size: int = 6,
    size: int = 160,
    learning_rate: float = 2e-3,
    border: int = 1,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with stage1_train.zip and stage1_test.zip, or unpacked.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        learning_rate: Peak of the cosine schedule.
        border: Width of the border class, in pixels.
        seed: Seeds initialization, augmentation and the data order.
    """
    nuclei = dataclasses.replace(data.dsb2018(source), classes=CLASSES)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(50, steps // 10), steps
    )
    pixels = losses.semantic(
        ce=(
            1.0,
            functools.partial(losses.cross_entropy, class_weights=(1.0, 2.0, 4.0)),
        ),
        dice=(1.0, losses.soft_dice),
    )

    def objective(logits, batch):
        return pixels(logits, batch | {"label": three_classes(batch, border)})

    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 6),
            monitor="dsb2018_score@0.50",
        ),
        data=data.Pipeline(
            dataset=nuclei, size=size, fields={"instances": data.Field("nearest")}
        ),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.rotate90,
            data.augment.scale_and_crop(minimum=0.5, maximum=2.0),
            data.augment.gaussian_blur(sigma=1.0),
            # Microscopes differ more than the images of one microscope.
            data.augment.exposure(minimum=-2.0, maximum=0.5),
        ),
        model=models.UNet(
            num_classes=len(CLASSES),
            widths=(16, 32, 64, 128, 128),
            norm=models.layers.batch_norm,
        ),
        objective=objective,
        optimizer=train.with_ema(
            optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.inject_hyperparams(optax.adamw)(rate),
            ),
            decay=0.99,
        ),
        metric=metrics.objects(metrics.Matching.from_batch, separate=separate),
    )


def three_classes(batch, width: int):
    """Labels [B, H, W]: 0 background, 1 inside, 2 border of an instance."""
    ids = batch["instances"].astype(jnp.int32)
    window = (1, 2 * width + 1, 2 * width + 1)

    def extreme(reduce, start):
        return jax.lax.reduce_window(ids, start, reduce, window, (1, 1, 1), "SAME")

    largest = extreme(jax.lax.max, np.iinfo(np.int32).min)
    smallest = extreme(jax.lax.min, np.iinfo(np.int32).max)
    return jnp.where(ids == 0, 0, jnp.where(largest == smallest, 1, 2))


def separate(probs: np.ndarray) -> np.ndarray:
    """Makes nuclei [H, W] of probabilities [H, W, 3], with settings not chosen yet."""
    return inference.instances(*maps_of(probs))


def maps_of(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two maps of the watershed."""
    return probs[..., 1], probs[..., 1] + probs[..., 2]


if __name__ == "__main__":
    cli.run(experiment)
