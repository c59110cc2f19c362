import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import train

PARAMS = {
    "encoder": {"conv": {"kernel": jnp.full((2, 2), 2.0)}},
    "head": {"bias": jnp.full(3, 2.0), "kernel": jnp.full(2, 2.0)},
}


def in_encoder(path):
    return path.startswith("encoder/")


def updated(optimizer, steps=1):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_frozen_parameters_stay():
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.add_decayed_weights(0.5),
        optax.sgd(0.1, momentum=0.9),
    )
    params, state = updated(train.freeze(optimizer, in_encoder))
    np.testing.assert_array_equal(params["encoder"]["conv"]["kernel"], 2.0)
    # Five trained values of gradient 1 are clipped; decay adds half the parameter.
    want = 2 - 0.1 * (1 / np.sqrt(5) + 1)
    np.testing.assert_allclose(params["head"]["bias"], want, rtol=1e-6)
    assert sum(x.size for x in jax.tree.leaves(state)) == 5


def test_freeze_names_a_path_if_it_selects_nothing():
    for is_frozen, what in ((lambda _: False, "no"), (lambda _: True, "every")):
        optimizer = train.freeze(optax.sgd(0.1), is_frozen)
        with pytest.raises(ValueError, match=f"{what} parameter.*encoder/conv/kernel"):
            optimizer.init(PARAMS)


def test_factors_and_schedules_by_hand():
    factors = {
        "encoder": lambda step: jnp.where(step < 2, 0.0, 0.1),
        "head": 1,
        "head/bias": 0.5,
    }
    optimizer = optax.chain(optax.sgd(1.0), train.scale_updates(factors))
    params, _ = updated(optimizer, steps=2)
    np.testing.assert_array_equal(params["encoder"]["conv"]["kernel"], 2.0)
    params, _ = updated(optimizer, steps=3)
    np.testing.assert_allclose(params["encoder"]["conv"]["kernel"], 1.9, rtol=1e-6)
    np.testing.assert_allclose(params["head"]["bias"], 0.5)
    np.testing.assert_allclose(params["head"]["kernel"], -1.0)


def test_modules_without_a_factor_keep_their_updates():
    optimizer = optax.chain(optax.sgd(1.0), train.scale_updates({"encoder": 0.25}))
    params, _ = updated(optimizer)
    np.testing.assert_allclose(params["encoder"]["conv"]["kernel"], 1.75)
    np.testing.assert_array_equal(params["head"]["bias"], 1.0)


@pytest.mark.parametrize("name", ["enc", "encoder/", "head/bias/x"])
def test_a_factor_for_no_parameter_is_a_mistake(name):
    scaled = train.scale_updates({"head": 1.0, name: 0.1})
    with pytest.raises(ValueError, match=rf"{name!r}.*encoder/conv/kernel"):
        scaled.init(PARAMS)


def test_checkpoints_hold_a_frozen_optimizer(tmp_path):
    optimizer = train.freeze(optax.adam(0.1), in_encoder)
    params, state = updated(optimizer)
    full = train.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={},
        opt_state=state,
        key=jax.random.key(0),
    )
    with train.Checkpoints(tmp_path / "checkpoints", monitor="x") as checkpoints:
        checkpoints.save(full, {"x": 1.0})
    with train.Checkpoints(tmp_path / "checkpoints", monitor="x") as checkpoints:
        restored = checkpoints.restore(0, full)
    assert jax.tree.structure(restored) == jax.tree.structure(full)
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, full.opt_state)
