"""The compiled step contains only the user's arithmetic.

It has no branch, no host callback, and no bit operations except those that turn random
bits into random numbers, so a digest of the state or the batch is detected.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from segjax import data, models, ops, train
from segjax.train import multi_seed
from tests.docs.blocks import defined
from tests.scenes import experiment

MIXING = ("shift_right_logical", "bitcast_convert_type", "population_count", "clz")


def foreign(jaxpr, drawn=()):
    """Names of operations that do not belong in a step, including nested programs.

    Args:
        jaxpr: The program.
        drawn: For each of its arguments, whether it depends only on random bits.
    """
    found, pure = [], {v for v, yes in zip(jaxpr.invars, drawn, strict=False) if yes}
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inputs = [x for x in eqn.invars if not isinstance(x, Literal)]
        # Depends on random bits and constants, not on the state or the batch.
        random = name == "random_bits" or (inputs and all(x in pure for x in inputs))
        if name == "cond" or "callback" in name or (name in MIXING and not random):
            found.append(name)
        for inner in _inside(eqn):
            same = len(inner.invars) == len(eqn.invars)
            known = [isinstance(x, Literal) or x in pure for x in eqn.invars]
            found += foreign(inner, known if same else ())
        if random:
            pure |= set(eqn.outvars)
    return found


def _inside(eqn):
    for value in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
    ):
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def noisy(key, example):
    """Draws two kinds of random numbers, besides the flip's."""
    example = data.augment.horizontal_flip(key, example)
    image = example["image"] + 0.1 * jax.random.normal(key, example["image"].shape)
    return example | {"image": image * jax.random.uniform(key, ())}


def supervised():
    model = models.UNet(
        num_classes=3, widths=(4, 8), norm=models.layers.batch_norm, dropout=0.5
    )
    return experiment(model=model, augment=noisy)


def of_a_teacher():
    step = defined("extending.md", "Mean teacher")["mean_teacher"]
    return dataclasses.replace(experiment(augment=noisy), step=step)


EXPERIMENTS = {"supervised": supervised, "mean teacher": of_a_teacher}


def program(made, seeds=1, vmapped=False):
    """The jaxpr that the loop compiles, for one seed or several."""
    batch = next(made.data.train_batches(batch_size=8, seed=0))
    spec = train.batch_spec(batch)
    state = train.initializer(made, spec)(jax.random.key(0))
    step = train.build_step(made)
    form = multi_seed.seed_step(step, seeds=seeds)
    if vmapped:
        form = multi_seed.vmapped(
            step, mesh=multi_seed.mesh_of_seeds(seeds, jax.devices()[:1]), seeds=seeds
        )
    groups = form.pack([state] * seeds), form.pack_batches([batch] * seeds)
    return jax.make_jaxpr(form.update)(*groups).jaxpr


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_step_has_only_the_users_arithmetic(name):
    made = EXPERIMENTS[name]()
    for options in ({}, {"seeds": 2}, {"seeds": 2, "vmapped": True}):
        jaxpr = program(made, **options)
        assert "random_bits" in str(jaxpr)  # The program has random bits.
        assert "conv_general_dilated" in str(jaxpr)
        assert foreign(jaxpr) == []


def with_digest(of):
    def make(made):
        step = train.supervised_step(made)

        def update(state, batch):
            new, metrics = step(state, batch)
            return new, metrics | {"digest": of(state, new, batch)}

        return dataclasses.replace(step, update=update)

    return make


@pytest.mark.parametrize(
    "of",
    [
        lambda state, new, batch: ops.digest(new.params),
        lambda state, new, batch: ops.digest(batch["image"]),
        lambda state, new, batch: ops.digest(state.key),
        lambda state, new, batch: jax.lax.cond(
            state.step < 5, lambda: optax.tree.norm(new.params), lambda: 0.0
        ),
        lambda state, new, batch: jax.pure_callback(
            np.asarray, jax.ShapeDtypeStruct((), jnp.int32), new.step
        ),
    ],
    ids=["parameters", "images", "key", "branch", "callback"],
)
def test_a_digest_added_to_a_step_is_detected(of):
    made = dataclasses.replace(supervised(), step=with_digest(of))
    for options in ({}, {"seeds": 2}):
        assert foreign(program(made, **options))
