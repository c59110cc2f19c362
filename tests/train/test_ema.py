"""Averaged parameters are compared with the explicit recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import train


def test_average_follows_the_recursion():
    # Gradient 1, learning rate 1: w = 0, -1, -2, -3. Decay 1/2 from w = 0:
    # -1/2, -5/4, -17/8.
    optimizer = train.with_ema(optax.sgd(1.0), decay=0.5)
    params = {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    for expected in (-1 / 2, -5 / 4, -17 / 8):
        updates, state = optimizer.update({"w": jnp.ones(2)}, state, params)
        params = optax.apply_updates(params, updates)
        average = train.averaged_params(params, state)
        np.testing.assert_allclose(average["w"], expected)
    np.testing.assert_allclose(params["w"], -3)


def test_average_counts_accumulated_updates():
    optimizer = optax.MultiSteps(train.with_ema(optax.sgd(1.0), decay=0.5), 2)
    params = {"w": jnp.zeros(())}
    state = optimizer.init(params)
    for expected in (0, -1 / 2, -1 / 2, -5 / 4):
        updates, state = optimizer.update({"w": jnp.ones(())}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(train.averaged_params(params, state)["w"], expected)


def test_without_an_average_the_parameters_are_used():
    params = {"w": jnp.ones(3)}
    state = optax.adam(1e-3).init(params)
    assert train.averaged_params(params, state) is params


def test_evaluation_uses_the_average():
    params = {"w": jnp.ones(())}
    optimizer = train.with_ema(optax.sgd(1.0), decay=0.9)
    state = train.TrainState(
        0, params, {"s": 1}, optimizer.init(params), jax.random.key(0)
    )
    average = {"w": jnp.full((), 7.0)}
    state = state.replace(opt_state=state.opt_state._replace(average=average))
    assert train.variables(state) == {"params": average, "s": 1}


def test_decay_of_one_is_refused():
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1\."):
        train.with_ema(optax.sgd(1.0), decay=1.0)
