"""The update is W = W - lr * dL/dW."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import models, train

LEARNING_RATE = 0.1
MODELS = {
    "simple_cnn": models.SimpleCNN(num_classes=3),
    "unet": models.UNet(num_classes=3, widths=(4, 8)),
    "fcn": models.FCN(num_classes=3, widths=(2, 2, 4, 4, 4), head_width=8, dropout=0.0),
}


def loss_apart(params, model, objective, batch):
    """The weighted mean over examples, implemented without the step."""
    logits = model.apply({"params": params}, batch["image"] / np.float32(255))
    terms = objective(logits, batch)
    per_image = sum(terms.values())
    kept = batch["weight"] > 0
    return jnp.sum(jnp.where(kept, per_image, 0)) / kept.sum()


@pytest.mark.parametrize("name", MODELS)
def test_plain_sgd_is_w_minus_lr_times_gradient(name, batch, objective):
    model = MODELS[name]
    optimizer = optax.sgd(LEARNING_RATE)
    state = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    grads = jax.jit(
        jax.grad(
            functools.partial(loss_apart, model=model, objective=objective, batch=batch)
        )
    )(state.params)
    expected = jax.tree.map(lambda w, g: w - LEARNING_RATE * g, state.params, grads)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-3

    step = train.jit_step(
        train.make_train_step(train.make_forward(model), objective, optimizer)
    )
    new, _ = step(jax.tree.map(jnp.copy, state), batch)

    # float32 rounding: the two programs sum in different orders.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
        new.params,
        expected,
    )
    assert int(new.step) == 1


def test_gradient_matches_finite_differences_in_float64(batch, objective):
    """Compares with a difference quotient, independent of JAX's gradient."""
    model = models.SimpleCNN(num_classes=3, width=2)
    with jax.enable_x64(True):
        params = jax.tree.map(
            lambda x: np.asarray(x, np.float64),
            jax.device_get(model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))[
                "params"
            ],
        )
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        model64 = model.clone(dtype=jnp.float64)
        loss = jax.jit(lambda w: loss_apart(unflatten(w), model64, objective, batch))
        places = np.random.default_rng(0).choice(flat.size, 12, replace=False)
        # The logits are float32, so steps must stay well above their rounding.
        step = 1e-2
        quotient = [
            (loss(flat.at[i].add(step)) - loss(flat.at[i].add(-step))) / (2 * step)
            for i in places
        ]
        grad = jax.grad(loss)(flat)[places]
    np.testing.assert_allclose(grad, quotient, rtol=5e-3, atol=1e-4)


def test_metrics_are_the_terms_and_their_sum(batch, objective):
    model, optimizer = MODELS["simple_cnn"], optax.sgd(0.0)
    state = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    step = jax.jit(
        train.make_train_step(train.make_forward(model), objective, optimizer)
    )
    new, scalars = step(state, batch)
    expected = loss_apart(state.params, model, objective, batch)
    assert set(scalars) == {"loss", "loss/ce", "loss/dice", "grad_norm"}
    np.testing.assert_allclose(scalars["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        scalars["loss"], scalars["loss/ce"] + scalars["loss/dice"], rtol=1e-6
    )
    # A learning rate of 0 changes only the count.
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


def test_examples_of_weight_zero_change_nothing(batch, objective):
    model, optimizer = MODELS["simple_cnn"], optax.sgd(0.1)
    state = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    step = jax.jit(
        train.make_train_step(train.make_forward(model), objective, optimizer)
    )
    padding = batch["weight"] == 0
    other = batch | {
        "image": np.where(
            padding[:, None, None, None], 255 - batch["image"], batch["image"]
        ),
        "label": np.where(padding[:, None, None], 0, batch["label"]),
    }
    one, two = step(state, batch)[0], step(state, other)[0]
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_augmentation_depends_on_seed_step_and_index_alone(batch, objective):
    """Permuting a batch permutes the augmented examples."""

    def noise(key, example):
        image = example["image"] + jax.random.normal(key, example["image"].shape)
        return example | {"image": image}

    key = jax.random.key(1)
    batch = train.make_forward(None).prepare(batch)
    once = train.augmented(noise, key, batch)["image"]
    order = np.random.default_rng(0).permutation(8)
    shuffled = {k: v[order] for k, v in batch.items()}
    again = train.augmented(noise, key, shuffled)["image"]
    np.testing.assert_array_equal(again, once[order])
    other = train.augmented(noise, jax.random.key(2), batch)["image"]
    assert not np.allclose(other, once)


def test_a_wrong_dtype_is_an_error(batch, objective):
    model, optimizer = MODELS["simple_cnn"], optax.sgd(0.1)
    state = train.init_state(model, optimizer, seed=0, image_shape=(16, 16, 3))
    step = train.make_train_step(train.make_forward(model), objective, optimizer)
    with pytest.raises(AssertionError, match="float32"):
        jax.eval_shape(step, state, batch | {"weight": batch["index"]})


def test_training_starts_from_given_variables(objective):
    """They replace the initial ones, are copied, and initialize the optimizer."""
    model, optimizer = MODELS["simple_cnn"], train.with_ema(optax.sgd(0.1), decay=0.9)
    options = {"seed": 0, "image_shape": (16, 16, 3)}
    given = jnp.full((3, 3, 3, 16), 0.5)

    def start(fresh):
        conv = fresh["params"]["conv"] | {"kernel": given}
        return fresh | {"params": fresh["params"] | {"conv": conv}}

    plain = train.init_state(model, optimizer, **options)
    state = train.init_state(model, optimizer, **options, init_from=start)
    np.testing.assert_array_equal(state.params["conv"]["kernel"], given)
    average = train.averaged_params(None, state.opt_state)
    np.testing.assert_array_equal(average["conv"]["kernel"], given)
    for part in (state, plain):
        part.params["conv"].pop("kernel")
    jax.tree.map(np.testing.assert_array_equal, state.params, plain.params)
    same = jax.random.key_data(state.key) == jax.random.key_data(plain.key)
    assert same.all()
    assert state.params["conv"]["bias"] is not plain.params["conv"]["bias"]
