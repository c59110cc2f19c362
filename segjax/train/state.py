"""What changes while training, and how it begins."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from segjax.forward import Forward, make_forward
from segjax.typing import Batch, Key, PyTree

Start = Callable[[PyTree], PyTree]
"""`fresh variables -> variables` of the same structure: what training begins with."""

Spec = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name to (dtype, shape) of the entries of a stored batch of one row."""


@flax.struct.dataclass
class TrainState:
    """Everything that changes while training, and nothing else.

    Attributes:
        step: int32 scalar, updates done.
        params: Float32 parameters.
        model_state: Flax collections besides params, such as batch_stats.
        opt_state: The optimizer's.
        key: Never consumed: each step folds its number into it.
        extra: What a step of another method adds, such as a teacher's parameters or
            the state of a second optimizer; None where there is nothing.
    """

    # Any, not Array: transformations rebuild states of shapes, shardings and None.
    step: Any
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    key: Any
    extra: PyTree = None


def init_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_shape: Sequence[int],
    init_from: Start | None = None,
) -> TrainState:
    """The state before the first step, a pure function of its arguments.

    Compiled as one program: an eager `init` of a large network compiles each of its
    operations separately.

    Args:
        model: A linen module that needs nothing but `image`; see `make_init`.
        optimizer: An optax transformation.
        seed: Seeds parameters; another stream of the same seed drives dropout and
            augmentation.
        image_shape: (H, W, K) of an input; parameters do not depend on H and W.
        init_from: What fresh variables become, such as `interop.init_from(...)`.

    Returns:
        A state at step 0 on the default device.
    """
    spec = {"image": ("float32", tuple(image_shape))}
    init = make_init(make_forward(model), optimizer, spec=spec, init_from=init_from)
    return init(jax.random.key(seed))


def make_init(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    *,
    spec: Spec,
    init_from: Start | None = None,
    complete: Callable[[TrainState], TrainState] = lambda state: state,
) -> Callable[[Key], TrainState]:
    """Builds `key -> first state`: one compilation for any number of seeds.

    Args:
        forward: The model with its preprocessing.
        optimizer: An optax transformation.
        spec: What a stored batch is made of; see `batch_spec`.
        init_from: What fresh variables become.
        complete: `Step.init` of the step that will be made.
    """
    if init_from is None:
        return jax.jit(_init(forward, optimizer, spec, complete))
    # Imported arrays stay out of the programs, where they would be constants.
    fresh = jax.jit(lambda key: _variables(forward, spec, key))
    begin = jax.jit(lambda variables, key: complete(_begin(optimizer, variables, key)))

    def init(key: Key) -> TrainState:
        init_key, train_key = jax.random.split(key)
        # Copies: the step takes ownership, and the caller may use the arrays again.
        return begin(jax.tree.map(jnp.copy, init_from(fresh(init_key))), train_key)

    return init


def abstract_state(
    model: Any, optimizer: optax.GradientTransformation, *, image_shape: Sequence[int]
) -> TrainState:
    """Shapes and dtypes of `init_state`, with nothing computed."""
    spec = {"image": ("float32", tuple(image_shape))}
    init = _init(make_forward(model), optimizer, spec, lambda state: state)
    return jax.eval_shape(init, jax.random.key(0))


def batch_spec(batch: Batch) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What a host batch is made of: dtype and shape of a row of each entry."""
    return {k: (str(v.dtype), tuple(v.shape[1:])) for k, v in batch.items()}


def _init(forward, optimizer, spec, complete) -> Callable[[Key], TrainState]:
    def init(key: Key) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = _variables(forward, spec, init_key)
        return complete(_begin(optimizer, variables, train_key))

    return init


def _variables(forward: Forward, spec: Spec, key: Key) -> PyTree:
    """Fresh variables, without what the model only sows."""
    row = {name: jnp.zeros((1, *shape), dtype) for name, (dtype, shape) in spec.items()}
    arguments = forward.model_inputs(forward.prepare(row))
    variables = forward.model.init(key, **arguments, train=False)
    return {name: tree for name, tree in variables.items() if not _is_sown(tree)}


def _is_sown(tree: PyTree) -> bool:
    """Whether a collection is made by `sow`: tuples, which grow with each call."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return any(isinstance(k, jax.tree_util.SequenceKey) for path in paths for k in path)


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
