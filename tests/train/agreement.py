"""Three steps of one batch with different splits, for tests with several processes.

    python -m tests.train.agreement OUT WAY... [--distributed HOST:PORT COUNT RANK]

runs each WAY on all devices of all processes and writes the results to OUT, an .npz.
"""

import functools
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from segjax import losses, models, train
from segjax.train import sharding

WAYS = ("jit", "pmap", "jit_accumulated", "pmap_accumulated")
NORMS = {
    "group_norm": models.layers.group_norm,
    "batch_norm": models.layers.batch_norm,
}


class Tiny(nn.Module):
    """Two normalized convolutions, which compile fast."""

    norm: models.layers.Norm
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, *, train):
        x = image
        for features in (4, 8):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = nn.relu(self.norm(x, train=train, axis_name=self.axis_name))
        return models.layers.head(x, 3)


def batch(rows=16):
    """Images with uneven weights and ignored pixels."""
    rng = np.random.default_rng(5)
    return {
        "image": rng.integers(0, 256, (rows, 8, 8, 3)).astype(np.uint8),
        "label": rng.integers(0, 3, (rows, 8, 8)).astype(np.int32),
        "valid": rng.random((rows, 8, 8)) > 0.2,
        "weight": np.asarray([1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0])[
            :rows
        ].astype(np.float32),
        "index": np.arange(rows, dtype=np.int32),
    }


def jitter(key, example):
    return example | {"image": example["image"] * jax.random.uniform(key, ())}


objective = losses.semantic(
    ce=(0.5, losses.cross_entropy), dice=(1.0, losses.soft_dice)
)
# SGD, since AdamW amplifies the rounding of gradients that are mathematically zero.
# After the first step its momentum is the gradient.
optimizer = optax.sgd(0.1, momentum=0.9)


def first_state(norm):
    model = Tiny(NORMS[norm])
    return train.init_state(model, optimizer, seed=0, image_shape=(8, 8, 3))


def three_steps(norm, way, devices=None):
    """{name: array} of the state and the scalars after three steps."""
    devices = jax.devices() if devices is None else devices
    mapped = way.startswith("pmap")
    parts = 2 if way.endswith("accumulated") else 1
    make = functools.partial(train.make_train_step, micro_batches=parts)
    model = Tiny(NORMS[norm], axis_name=train.AXIS if mapped else None)
    axis = {"axis_name": train.AXIS} if mapped else {}
    step = make(train.make_forward(model), objective, optimizer, jitter, **axis)
    mesh = train.make_mesh(devices)
    if mapped:
        step, data = train.pmap_step(step), train.split_for_pmap(batch(), len(devices))
        state = jax.tree.map(jnp.copy, first_state(norm))
    else:
        step = train.jit_step(step, mesh)
        state = sharding.replicate(first_state(norm), mesh)
        rows = 16 // jax.process_count()
        here = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        mine = {k: v[here] for k, v in batch().items()}
        data = next(train.to_devices([mine], mesh))
    for _ in range(3):
        state, scalars = step(state, data)
    kept = (state.params, state.model_state, state.opt_state, scalars)
    return {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree_util.tree_flatten_with_path(jax.device_get(kept))[0]
    }


def difference(got, expected):
    """Largest difference of any leaf, relative to its largest entry."""
    assert got.keys() == expected.keys()
    return max(
        float(np.abs(got[k] - x).max() / (np.abs(x).max() + 1e-6))
        for k, x in expected.items()
    )


def main(out, *ways):
    found = {
        f"{norm} {way} {name}": x
        for norm in NORMS
        for way in ways
        for name, x in three_steps(norm, way).items()
    }
    if jax.process_index() == 0:
        np.savez(out, **found)


def load(path):
    """{(norm, way): {name: array}} of a file that `main` wrote."""
    result = {}
    with np.load(path) as file:
        for key, x in file.items():
            norm, way, name = key.split(" ", 2)
            result.setdefault((norm, way), {})[name] = x
    return result


if __name__ == "__main__":
    from segjax.cli import cluster

    cluster.join(sys.argv, timeout=60.0)
    end = sys.argv.index(cluster.FLAG) if cluster.FLAG in sys.argv else None
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:end])
