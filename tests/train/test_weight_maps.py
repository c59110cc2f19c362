"""Maps are transformed with their image and reach the objective."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from segjax import data, losses, metrics, models, ops, train
from segjax.data import augment

SIDE = 24


def scenes(count=12):
    """Two nearly touching squares, their instance ids, and a map equal to a channel."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    instances = np.zeros((count, SIDE, SIDE), np.uint16)
    instances[:, 4:12, 3:10], instances[:, 5:13, 12:20] = 1, 2
    weight = images[..., 0].astype(np.float32) / np.float32(255)
    return data.from_arrays(
        images,
        (instances > 0).astype(np.uint8),
        classes=("background", "square"),
        fields={"instances": instances, "pixel_weight": weight},
    )


FIELDS = {"instances": data.Field("nearest"), "pixel_weight": data.Field("linear")}
MAPS = {
    "border": lambda batch: losses.border_weights(batch["instances"]),
    "given": lambda batch: batch["pixel_weight"],
}


def made(weights, move):
    squares = scenes()
    return train.Experiment(
        config=train.TrainConfig(steps=4, batch_size=4, log_every=1),
        data=data.Pipeline(dataset=squares, fields=FIELDS),
        augment=move,
        model=models.SimpleCNN(num_classes=2, width=4),
        objective=losses.semantic_weighted(weights, ce=(1.0, losses.cross_entropy)),
        optimizer=optax.adam(1e-2),
        metric=metrics.semantic(squares.classes),
    )


@pytest.mark.parametrize("weights", MAPS.values(), ids=MAPS)
def test_a_weighted_objective_trains_through_the_pipeline(weights, tmp_path):
    move = augment.compose(augment.horizontal_flip, augment.elastic(sigma=2.0))
    result = train.train(
        made(weights, move), run=tmp_path / "run", console=Console(file=io.StringIO())
    )
    assert np.isfinite(result["metrics"]["loss/ce"])


MOVES = {
    "flip": augment.horizontal_flip,
    "quarter_turn": augment.rotate90,
    "rotate": augment.rotate(degrees=30.0),
    "elastic": augment.elastic(sigma=3.0),
    "scale_and_crop": augment.scale_and_crop(),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_map_is_transformed_with_its_image(name):
    """The linear map equals the image's first channel; the ids agree with the label."""
    experiment = made(MAPS["given"], MOVES[name])
    batch = next(experiment.data.train_batches(batch_size=8, seed=0))
    moved = jax.jit(
        lambda batch: train.augmented(
            experiment.augment,
            jax.random.key(3),
            experiment.forward.prepare(batch),
            fields=FIELDS,
        )
    )(batch)
    np.testing.assert_allclose(moved["pixel_weight"], moved["image"][..., 0], atol=1e-6)
    np.testing.assert_array_equal(
        jnp.asarray(moved["instances"] > 0), (moved["label"] == 1) & moved["valid"]
    )
    assert not np.array_equal(moved["instances"], batch["instances"])
    assert set(np.unique(moved["instances"])) <= {0, 1, 2}


def test_the_step_uses_the_transformed_weights():
    """One update equals one computed by hand on the transformed batch."""
    experiment = made(MAPS["given"], augment.horizontal_flip)
    batch = next(experiment.data.train_batches(batch_size=4, seed=0))
    init = train.initializer(experiment, train.batch_spec(batch))
    state = init(jax.random.key(0))
    _, scalars = jax.jit(train.build_step(experiment).update)(state, batch)
    key, _ = train.step_keys(state)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
    coins = np.asarray(jax.vmap(jax.random.bernoulli)(keys))
    assert 0 < coins.sum() < 4

    def turned(x):
        return np.where(coins.reshape(-1, *[1] * (x.ndim - 1)), x[:, :, ::-1], x)

    label, valid = ops.split_ignored(jnp.asarray(turned(batch["label"])))
    image = ops.to_float(turned(batch["image"]))
    logits = experiment.model.apply({"params": state.params}, image)
    want = losses.cross_entropy(
        logits, label, valid, pixel_weights=jnp.asarray(turned(batch["pixel_weight"]))
    ).mean()
    np.testing.assert_allclose(scalars["loss"], want, rtol=1e-5)
