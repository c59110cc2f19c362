"""What changes while training, and how it begins."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from segjax.typing import Data, Key, PyTree


@flax.struct.dataclass
class TrainState:
    """Everything that changes while training, and nothing else.

    Attributes:
        step: int32 scalar, updates done.
        params: Float32 parameters.
        model_state: Flax collections besides params, such as batch_stats.
        opt_state: The optimizer's.
        key: Never consumed: each step folds its number into it.
    """

    # Any, not Array: transformations rebuild states of shapes, shardings and None.
    step: Any
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    key: Any


def init_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_shape: Sequence[int],
) -> TrainState:
    """The state before the first step, a pure function of its arguments.

    Compiled as one program: an eager `init` of a large network compiles each of its
    operations apart.

    Args:
        model: A linen module.
        optimizer: An optax transformation.
        seed: Seeds parameters; another stream of the same seed drives dropout and
            augmentation.
        image_shape: (H, W, 3) of an input; parameters do not depend on H and W.

    Returns:
        A state at step 0 on the default device.
    """
    return make_init(model, optimizer, image_shape=image_shape)(jax.random.key(seed))


def make_init(
    model: Any, optimizer: optax.GradientTransformation, *, image_shape: Sequence[int]
) -> Callable[[Key], TrainState]:
    """`key -> state` of `init_state`: one compilation for any number of seeds."""
    return jax.jit(_init(model, optimizer, image_shape))


def abstract_state(
    model: Any, optimizer: optax.GradientTransformation, *, image_shape: Sequence[int]
) -> TrainState:
    """Shapes and dtypes of `init_state`, with nothing computed."""
    return jax.eval_shape(_init(model, optimizer, image_shape), jax.random.key(0))


def image_shape(data: Data) -> tuple[int, ...]:
    """(H, W, 3) of training images, read off one batch."""
    with contextlib.closing(data.train_batches(batch_size=1, seed=0)) as batches:
        return next(batches)["image"].shape[1:]


def _init(
    model: Any, optimizer: optax.GradientTransformation, image_shape: Sequence[int]
) -> Callable[[Key], TrainState]:
    def init(key: Key) -> TrainState:
        init_key, train_key = jax.random.split(key)
        image = jnp.zeros((1, *image_shape), jnp.float32)
        variables = dict(model.init(init_key, image, train=False))
        params = variables.pop("params")
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=variables,
            opt_state=optimizer.init(params),
            key=train_key,
        )

    return init
