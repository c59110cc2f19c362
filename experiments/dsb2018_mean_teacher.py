"""Mean teacher (Tarvainen and Valpola, 2017, arXiv:1703.01780): few labeled nuclei.

Data Science Bowl 2018, fluorescence images: the task of dsb2018_unet.py with labels for
10 % of the training images. Half of each batch is labeled, on average.

    segjax seeds experiments/dsb2018_mean_teacher.py --source DIR --seeds 0 1 2
    segjax seeds experiments/dsb2018_mean_teacher.py --source DIR --seeds 0 1 2 \
        --no-teacher

`--no-teacher` trains on the labeled images only, with as many of them per update; both
evaluate averaged parameters.

Result: Dice of nucleus over the 53 test images, three seeds, 2 CPU cores (busy):
0.850 ± 0.005 with the teacher (23 min for all seeds), 0.861 ± 0.010 without (12 min);
validation 0.876 to 0.888 and 0.927 to 0.928. With these settings, which were not tuned,
the teacher does not help: validation Dice is lower from the second quarter on.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax import cli, data, losses, metrics, models, train
from segjax.data import augment


def experiment(
    *,
    source: pathlib.Path,
    teacher: bool = True,
    labeled: float = 0.1,
    steps: int = 1_000,
    batch_size: int = 8,
    size: int = 96,
    learning_rate: float = 2e-3,
    consistency: float = 10.0,
    decay: float = 0.99,
    foreground: float = 3.0,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with stage1_train.zip and stage1_test.zip, or unpacked.
        teacher: Whether unlabeled images are used.
        labeled: Fraction of the training images whose labels are used.
        steps: Optimizer updates in total.
        batch_size: Images per update, half of them labeled.
        size: Side of the training crops, in pixels.
        learning_rate: Peak of the cosine schedule.
        consistency: Weight of the squared difference from the teacher's probabilities,
            reached after a third of the updates.
        decay: Decay of the averaged parameters.
        foreground: Weight of nucleus pixels, relative to background.
        seed: Seeds initialization, augmentation and the data order.
    """
    nuclei = partly_labeled(data.dsb2018(source), fraction=labeled, others=teacher)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(50, steps // 10), steps
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    weights = (1.0, foreground)
    step = functools.partial(
        mean_teacher, decay=decay, weight=consistency, ramp=max(1, steps // 3)
    )
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size if teacher else max(1, batch_size // 2),
            seed=seed,
            eval_every=-(-steps // 4),
            monitor="dice/nucleus",
        ),
        data=data.Pipeline(dataset=nuclei, size=size),
        augment=augment.compose(
            augment.horizontal_flip,
            augment.rotate90,
            augment.scale_and_crop(minimum=0.5, maximum=2.0),
            augment.exposure(minimum=-2.0, maximum=0.5),
        ),
        model=models.UNet(
            num_classes=len(nuclei.classes),
            widths=(16, 32, 64, 64),
            norm=models.layers.batch_norm,
        ),
        objective=losses.semantic(
            ce=(1.0, functools.partial(losses.cross_entropy, class_weights=weights)),
            dice=(1.0, losses.soft_dice),
        ),
        optimizer=optimizer if teacher else train.with_ema(optimizer, decay=decay),
        metric=metrics.semantic(nuclei.classes),
        step=step if teacher else train.supervised_step,
    )


def mean_teacher(
    experiment: train.Experiment, *, decay: float, weight: float, ramp: int
) -> train.Step:
    """Builds a step with a consistency loss to the outputs of averaged parameters.

    Student and teacher get the same augmented image with different blur, exposure and
    noise. The consistency loss is over all pixels, those of labeled images included.

    Args:
        experiment: Its objective is used for the labels.
        decay: Decay of the teacher's parameters, which are stored in `extra`.
        weight: Weight of the consistency loss, from update `ramp` on.
        ramp: Updates of the paper's ramp-up of the weight, exp(-5 (1 - t)^2).
    """
    forward, optimizer = experiment.forward, experiment.optimizer
    prepare = train.make_prepare(forward, experiment.augment)
    view = augment.compose(
        augment.gaussian_blur(sigma=1.0),
        augment.exposure(minimum=-0.5, maximum=0.5),
        augment.gaussian_noise(sigma=0.1),
    )

    def objective(logits, batch, *, step):
        gap = jnp.sum((jax.nn.softmax(logits) - batch["teacher"]) ** 2, axis=-1)
        now = weight * jnp.exp(-5 * (1 - jnp.minimum(step / ramp, 1.0)) ** 2)
        terms = experiment.objective(logits, batch)
        return terms | {"consistency": now * jnp.mean(gap, axis=(1, 2))}

    loss_fn = train.make_loss(forward, objective)

    def update(state, batch):
        augment_key, key = train.step_keys(state)
        one, two = jax.random.split(key)
        batch = prepare(augment_key)(batch)
        seen = train.augmented(view, one, batch)
        variables = {"params": state.extra, **state.model_state}
        logits, _ = forward.apply(
            variables, seen, train=True, rngs=train.rng_streams(one)
        )
        batch = train.augmented(view, two, batch) | {"teacher": jax.nn.softmax(logits)}
        new, logged = train.minimize(loss_fn, optimizer, state, batch, key=two)
        extra = optax.incremental_update(new.params, state.extra, 1 - decay)
        return dataclasses.replace(new, extra=extra), logged

    return train.Step(
        update,
        init=lambda state: dataclasses.replace(state, extra=state.params),
        variables=lambda state: {"params": state.extra, **state.model_state},
    )


@dataclasses.dataclass(frozen=True)
class Subset(Sequence):
    """Examples at the indices `order`, those from position `labeled` without labels."""

    examples: Sequence
    order: tuple[int, ...]
    labeled: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index):
        """Returns an example; every pixel of an unlabeled one is ignored."""
        example = self.examples[self.order[index]]
        if index < self.labeled:
            return example
        return example | {"label": np.full_like(example["label"], 255)}

    def image_size(self, index):
        """Returns (height, width) of an example."""
        return self.examples.image_size(self.order[index])


def partly_labeled(
    nuclei: data.Dataset, *, fraction: float, others: bool
) -> data.Dataset:
    """Removes the labels of most training images, always of the same ones.

    Args:
        nuclei: The data set with all labels.
        fraction: Fraction of the training images that stay labeled, at least one.
        others: Whether to include the others, without labels. The labeled ones are then
            repeated until half of the training images are labeled.
    """
    train_split = nuclei.splits["train"]
    order = np.random.default_rng(0).permutation(len(train_split)).tolist()
    count = max(1, round(fraction * len(order)))
    few, rest = order[:count], order[count:]
    repeated = few * max(1, round(len(rest) / count)) if others else few
    chosen = tuple(repeated + rest) if others else tuple(few)
    split = Subset(train_split, chosen, len(repeated))
    text = f"{nuclei.fingerprint} {chosen} {len(repeated)}"
    return dataclasses.replace(
        nuclei,
        name=f"{nuclei.name}, {fraction:.0%} labeled",
        splits={**nuclei.splits, "train": split},
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


if __name__ == "__main__":
    cli.run(experiment)
