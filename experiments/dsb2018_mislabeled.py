"""U-Net on nuclei of which 5 % of the images have a wrong mask, of a known kind.

    segjax train experiments/dsb2018_mislabeled.py --source DIR --kind eroded --run RUN
    segjax inspect RUN --checkpoint last

`tables/label_noise.py` trains three seeds of each kind and counts the wrong masks that
`segjax inspect` ranks among the first 5 %: 0.39 of those eroded or dilated by three
pixels, 0.90 of the shifted and 0.99 of the swapped ones. 2 CPU cores, 5 min a run.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import optax
from scipy import ndimage

from segjax import cli, data, losses, metrics, models, train

Kind = Literal["eroded", "dilated", "shifted", "swapped"]
PIXELS = 3
"""Pixels that a mask loses or gains at its outline; shifts are three times as far."""


@dataclasses.dataclass(frozen=True)
class Mislabeled(Sequence):
    """A split, some of whose examples have wrong masks.

    Attributes:
        examples: The split; examples have `label`.
        kind: What is wrong: nuclei smaller or larger by `PIXELS` at their outline,
            moved, or those of another of the wrong examples, stretched to the image.
        fraction: Share of the examples that are wrong.
    """

    examples: Sequence[dict[str, Any]]
    kind: Kind
    fraction: float

    @functools.cached_property
    def wrong(self) -> np.ndarray:
        """Numbers of the wrong examples."""
        order = np.random.default_rng(0).permutation(len(self.examples))
        return order[: round(self.fraction * len(order))]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        example = self.examples[index]
        if index not in self.wrong:
            return example
        return example | {"label": self._altered(example["label"], index)}

    def image_size(self, index: Any) -> tuple[int, int]:
        """(height, width) without decoding."""
        return self.examples.image_size(index)  # type: ignore[attr-defined]

    def _altered(self, label: np.ndarray, index: int) -> np.ndarray:
        if self.kind == "eroded":
            return ndimage.grey_erosion(label, footprint=disk(PIXELS))
        if self.kind == "dilated":
            return ndimage.grey_dilation(label, footprint=disk(PIXELS))
        if self.kind == "shifted":
            angle = np.random.default_rng([1, index]).uniform(0, 2 * np.pi)
            way = 3 * PIXELS * np.array([np.sin(angle), np.cos(angle)])
            return ndimage.shift(label, way.round(), order=0)
        place = np.flatnonzero(self.wrong == index)[0] + 1
        other = self.examples[int(self.wrong[place % len(self.wrong)])]["label"]
        rows, columns = (
            np.arange(new) * old // new
            for new, old in zip(label.shape, other.shape, strict=True)
        )
        return other[rows[:, None], columns]


def disk(radius: int) -> np.ndarray:
    """Pixels [2 r + 1, 2 r + 1] at most `radius` from the center."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return rows**2 + columns**2 <= radius**2


def experiment(
    *,
    source: pathlib.Path,
    kind: Kind = "eroded",
    wrong: float = 0.05,
    steps: int = 800,
    batch_size: int = 6,
    size: int = 160,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with stage1_train.zip and stage1_test.zip, or unpacked.
        kind: What is wrong with the masks; see `Mislabeled`.
        wrong: Share of the training images with wrong masks.
        steps: Optimizer updates in total. Few, since longer training also fits the
            wrong masks.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        learning_rate: Peak of the cosine schedule.
        seed: Seeds initialization, augmentation and the data order.
    """
    nuclei = data.dsb2018(source)
    altered = Mislabeled(nuclei.splits["train"], kind, wrong)
    dataset = dataclasses.replace(
        nuclei,
        name=f"dsb2018 with {kind} masks",
        splits={**nuclei.splits, "train": altered},
        fingerprint=f"{nuclei.fingerprint} {kind} {wrong}",
    )
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(50, steps // 10), steps
    )
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps, batch_size=batch_size, seed=seed, eval_every=steps, samples=0
        ),
        data=data.Pipeline(dataset=dataset, size=size),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.rotate90,
            data.augment.exposure(minimum=-2.0, maximum=0.5),
        ),
        model=models.UNet(
            num_classes=len(nuclei.classes),
            widths=(16, 32, 64, 128, 128),
            norm=models.layers.batch_norm,
        ),
        objective=losses.semantic(
            ce=(1.0, losses.cross_entropy), dice=(1.0, losses.soft_dice)
        ),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(rate)
        ),
        metric=metrics.semantic(nuclei.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
