"""U-Net on scenes of handwritten digits, 3 % of whose training labels are wrong.

    segjax train experiments/digits_mislabeled.py --run runs/mislabeled
    segjax inspect runs/mislabeled --checkpoint last

Which labels are wrong is known here, so that one can count how many of them a ranking
finds. `tests/experiments/test_digits_mislabeled.py` does.

Result: of the 180 wrong ones 99 % are among the 10 % with the highest loss (98 % of the
renamed, all of the exchanged) and 92 % among the highest 3 %; by gradient norm 77 % are
among the highest 10 % (89 % and 66 %). One seed.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib

from segjax import cli, data, losses, metrics, models, train


@dataclasses.dataclass(frozen=True)
class Mislabeled(Sequence):
    """The first examples of a split, some with wrong labels.

    Half of the wrong ones have the label map of another of them (`exchanged`); in the
    others each object keeps its place and gets another class (`renamed`).

    Attributes:
        examples: The split; examples have `label` and `instances`.
        size: How many of them to use.
        share: Of the examples that are made wrong.
    """

    examples: Sequence[dict[str, Any]]
    size: int
    share: float

    @functools.cached_property
    def wrong(self) -> np.ndarray:
        """Places of the wrong ones: the first half exchanged, the others renamed."""
        chosen = np.random.default_rng(0).permutation(self.size)
        return chosen[: 2 * round(self.share * self.size / 2)]

    @property
    def exchanged(self) -> np.ndarray:
        """Places of those with the label map of another example."""
        return self.wrong[: len(self.wrong) // 2]

    @property
    def renamed(self) -> np.ndarray:
        """Places of those whose objects have another class."""
        return self.wrong[len(self.wrong) // 2 :]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> dict[str, Any]:
        if not 0 <= index < self.size:
            raise IndexError(f"no example {index} of {self.size}")
        example = self.examples[index]
        if index in self.exchanged:
            turn = np.flatnonzero(self.exchanged == index)[0] + 1
            other = int(self.exchanged[turn % len(self.exchanged)])
            return example | {"label": self.examples[other]["label"]}
        if index in self.renamed:
            return example | {"label": _renamed(example, index)}
        return example


def _renamed(example: dict[str, Any], index: int) -> np.ndarray:
    """The label map with another digit, evenly drawn, for each object."""
    rng = np.random.default_rng([1, index])
    label, instances = example["label"].copy(), example["instances"]
    for instance in np.unique(instances[instances > 0]):
        here = instances == instance
        digit = label[here][0] - 1
        label[here] = (digit + rng.integers(1, 10)) % 10 + 1
    return label


def experiment(
    *,
    steps: int = 900,
    batch_size: int = 16,
    learning_rate: float = 2e-2,
    scenes: int = 6_000,
    wrong: float = 0.03,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        steps: Optimizer updates in total. Few: a model that is trained for long
            learns the wrong labels too.
        batch_size: Images per update, over all devices.
        learning_rate: Peak of the cosine schedule.
        scenes: Training scenes.
        wrong: Share of them whose labels are wrong.
        seed: Seeds initialization and the data order.
    """
    digits = data.digits()
    known = Mislabeled(digits.splits["train"], scenes, wrong)
    dataset = dataclasses.replace(
        digits,
        name="digits with wrong labels",
        splits={**digits.splits, "train": known},
        fingerprint=f"{digits.fingerprint} {scenes} {wrong}",
    )
    weights = (1.0, *[4.0] * 10)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps, batch_size=batch_size, seed=seed, eval_every=steps, samples=0
        ),
        data=data.Pipeline(dataset=dataset),
        # Group norm: with batch norm there would be no gradient of one example.
        model=models.UNet(num_classes=len(digits.classes), widths=(16, 32, 64, 64)),
        objective=losses.semantic(
            ce=(1.0, functools.partial(losses.cross_entropy, class_weights=weights)),
            dice=(1.0, losses.soft_dice),
        ),
        optimizer=_muon(learning_rate, steps),
        metric=metrics.semantic(digits.classes),
    )


def _muon(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Muon for kernels, Adam for the rest (Jordan et al., 2024).

    With group norm, Adam spends its first 1,000 steps before the digits tell apart,
    Muon 300.
    """

    def rate(peak: float) -> optax.Schedule:
        warmup = min(100, steps // 10)
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)

    def kernels(params):
        def sides(x):
            inputs, outputs = tuple(range(x.ndim - 1)), x.ndim - 1
            return optax.contrib.MuonDimensionNumbers(inputs, outputs)

        return jax.tree.map(lambda x: sides(x) if x.ndim == 4 else None, params)

    return optax.contrib.muon(
        rate(learning_rate),
        adam_learning_rate=rate(learning_rate / 3),
        muon_weight_dimension_numbers=kernels,
    )


if __name__ == "__main__":
    cli.run(experiment)
