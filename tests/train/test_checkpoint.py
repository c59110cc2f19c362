"""The best and the last are kept, whole, and only for the model they are of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax import train


def state_of(width=3, step=0, optimizer=None):
    optimizer = optimizer or optax.adamw(1e-3)
    params = {"conv": {"kernel": jnp.arange(2.0 * width).reshape(2, width)}}
    return train.TrainState(
        step=jnp.int32(step),
        params=params,
        model_state={"batch_stats": {"mean": jnp.ones(width)}},
        opt_state=optimizer.init(params),
        key=jax.random.key(4),
    )


@pytest.fixture
def checkpoints(tmp_path):
    with train.Checkpoints(tmp_path / "checkpoints", monitor="iou") as made:
        yield made


def test_best_and_last_are_kept(checkpoints):
    assert checkpoints.best is None
    for step, iou in ((0, None), (1, 0.2), (2, 0.9), (3, 0.5), (4, float("nan"))):
        checkpoints.save(state_of(step=step), {} if iou is None else {"iou": iou})
    assert checkpoints.steps == [2, 4]
    assert (checkpoints.best, checkpoints.last) == (2, 4)


def test_every_leaf_comes_back_as_it_was(checkpoints):
    state = state_of(step=5)
    checkpoints.save(state, {})
    back = checkpoints.restore(5, state_of())
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_shapes_alone_are_enough_to_restore(checkpoints):
    checkpoints.save(state_of(step=5), {})
    back = checkpoints.restore(5, jax.eval_shape(state_of))
    np.testing.assert_array_equal(back.params["conv"]["kernel"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            state_of(width=4),
            r"params/conv/kernel needs float32\[2, 4\], the",
        ),
        (state_of(optimizer=optax.sgd(1.0)), r"opt_state/.* needs nothing"),
    ],
    ids=["model", "optimizer"],
)
def test_another_model_is_named(checkpoints, other, message):
    checkpoints.save(state_of(step=1), {})
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(1, other)
