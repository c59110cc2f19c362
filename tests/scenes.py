"""Small scenes, an experiment on them, and a comparison of trees, for many tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax import data, losses, metrics, models, train

CLASSES = ("background", "square", "bar")


def examples(count, *, seed=0, size=(16, 16)):
    """Scenes of a bright square and a bright bar, with a void corner."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        image = rng.integers(0, 60, (*size, 3)).astype(np.uint8)
        label = np.zeros(size, np.uint8)
        y, x = rng.integers(1, size[0] - 6, 2)
        label[y : y + 5, x : x + 5] = 1
        image[y : y + 5, x : x + 5, 0] += 150
        label[0] = 2
        image[0, :, 2] += 150
        label[-1, -1] = 255
        made.append({"image": image, "label": label, "name": f"scene {i}"})
    return made


def dataset(train=24, validation=10, test=6):
    return data.Dataset(
        name="scenes",
        classes=CLASSES,
        splits={
            "train": examples(train, seed=1),
            "validation": examples(validation, seed=2),
            "test": examples(test, seed=3),
        },
        fingerprint="scenes",
    )


def experiment(*, model=None, optimizer=None, augment=None, dataset_=None, **config):
    scenes = dataset() if dataset_ is None else dataset_
    config = {"steps": 12, "batch_size": 8, "eval_every": 6, "log_every": 4} | config
    return train.Experiment(
        config=train.TrainConfig(**config),
        data=data.Pipeline(dataset=scenes, multiple=16),
        model=models.SimpleCNN(num_classes=3) if model is None else model,
        objective=losses.semantic(ce=(1.0, losses.cross_entropy)),
        optimizer=optax.adam(1e-2) if optimizer is None else optimizer,
        metric=metrics.semantic(CLASSES),
        augment=augment,
    )


def relative_difference(a, b):
    """The largest difference of two trees, relative to each leaf's largest entry."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(jnp.max(jnp.abs(x - y)) / (jnp.max(jnp.abs(y)) + 1e-8)) for x, y in pairs
    )


class Around:
    """Data that hands all on to other data, for tests that change one part of it."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    # By name: since Python 3.12 a protocol does not ask `__getattr__`.
    classes = property(lambda self: self.inner.classes)
    splits = property(lambda self: self.inner.splits)

    def num_examples(self, split):
        return self.inner.num_examples(split)

    def train_batches(self, **options):
        return self.inner.train_batches(**options)

    def eval_batches(self, split, **options):
        return self.inner.eval_batches(split, **options)

    def fingerprint(self):
        return self.inner.fingerprint()
