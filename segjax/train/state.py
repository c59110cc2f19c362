"""What changes while training, and how it begins."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from segjax.typing import Data, Key, PyTree

Start = Callable[[PyTree], PyTree]
"""`fresh variables -> variables` of the same structure: what training begins with."""


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
    start: Start | None = None,
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
        start: What fresh variables become, such as `interop.start_from(...)`.

    Returns:
        A state at step 0 on the default device.
    """
    init = make_init(model, optimizer, image_shape=image_shape, start=start)
    return init(jax.random.key(seed))


def make_init(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    image_shape: Sequence[int],
    start: Start | None = None,
) -> Callable[[Key], TrainState]:
    """`key -> state` of `init_state`: one compilation for any number of seeds."""
    if start is None:
        return jax.jit(_init(model, optimizer, image_shape))
    # Imported arrays stay out of the programs, where they would be constants.
    fresh = jax.jit(functools.partial(_variables, model, image_shape))
    begin = jax.jit(functools.partial(_begin, optimizer))

    def init(key: Key) -> TrainState:
        init_key, train_key = jax.random.split(key)
        # Copies: the step takes ownership, and who loaded the arrays keeps them.
        return begin(jax.tree.map(jnp.copy, start(fresh(init_key))), train_key)

    return init


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
        return _begin(optimizer, _variables(model, image_shape, init_key), train_key)

    return init


def _variables(model: Any, image_shape: Sequence[int], key: Key) -> PyTree:
    image = jnp.zeros((1, *image_shape), jnp.float32)
    return dict(model.init(key, image, train=False))


def _begin(
    optimizer: optax.GradientTransformation, variables: PyTree, key: Key
) -> TrainState:
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        model_state=rest,
        opt_state=optimizer.init(variables["params"]),
        key=key,
    )
