"""The train state: its initialization, and the average of its parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from segjax.errors import UserError
from segjax.forward import Forward, make_forward
from segjax.typing import Batch, Key, PyTree

InitFrom = Callable[[PyTree], PyTree]
"""`fresh variables -> variables` of the same structure, with which training starts."""

Spec = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name to (dtype, shape) of one example, for the entries of a stored batch."""


@flax.struct.dataclass
class TrainState:
    """Everything that changes while training, and nothing else.

    Attributes:
        step: int32 scalar, updates done.
        params: Float32 parameters.
        model_state: Flax collections besides params, such as batch_stats.
        opt_state: The optimizer's.
        key: The random key; constant, each step folds its number into it.
        extra: The further state of a custom step, such as a teacher's parameters or
            the state of a second optimizer; None if there is none.
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
    init_from: InitFrom | None = None,
) -> TrainState:
    """Returns the state before the first step, a pure function of the arguments.

    Compiled as one program: an eager `init` of a large network compiles each of its
    operations separately.

    Args:
        model: A linen module that needs nothing but `image`; see `make_init`.
        optimizer: An optax transformation.
        seed: Seeds parameters; another stream of the same seed drives dropout and
            augmentation.
        image_shape: (H, W, K) of an input; parameters do not depend on H and W.
        init_from: Replaces fresh variables, such as `interop.init_from(...)`.

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
    init_from: InitFrom | None = None,
    complete: Callable[[TrainState], TrainState] = lambda state: state,
) -> Callable[[Key], TrainState]:
    """Builds `key -> first state`: one compilation for any number of seeds.

    Args:
        forward: The model with its preprocessing.
        optimizer: An optax transformation.
        spec: The entries of a stored batch; see `batch_spec`.
        init_from: Replaces fresh variables.
        complete: `Step.init` of the step, which adds its own state.
    """
    if init_from is None:
        return jax.jit(_init(forward, optimizer, spec, complete))
    # Imported arrays are arguments: as closures they would be constants of a program.
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
    """Returns the shapes and dtypes of `init_state` without computing it."""
    spec = {"image": ("float32", tuple(image_shape))}
    init = _init(make_forward(model), optimizer, spec, lambda state: state)
    return jax.eval_shape(init, jax.random.key(0))


def batch_spec(batch: Batch) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns dtype and shape of one example for each entry of a host batch."""
    return {k: (str(v.dtype), tuple(v.shape[1:])) for k, v in batch.items()}


def _init(forward, optimizer, spec, complete) -> Callable[[Key], TrainState]:
    def init(key: Key) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = _variables(forward, spec, init_key)
        return complete(_begin(optimizer, variables, train_key))

    return init


def _variables(forward: Forward, spec: Spec, key: Key) -> PyTree:
    """Initializes variables, without collections that the model only sows."""
    row = {name: jnp.zeros((1, *shape), dtype) for name, (dtype, shape) in spec.items()}
    arguments = forward.model_inputs(forward.prepare(row))
    variables = forward.model.init(key, **arguments, train=False)
    return {name: tree for name, tree in variables.items() if not _is_sown(tree)}


def _is_sown(tree: PyTree) -> bool:
    """Whether a collection comes from `sow`: tuples, which grow with each call."""
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


class EmaState(NamedTuple):
    """The state of the wrapped optimizer, and the averaged parameters."""

    inner: optax.OptState
    average: PyTree


def with_ema(
    optimizer: optax.GradientTransformation, *, decay: float
) -> optax.GradientTransformationExtraArgs:
    """Averages the parameters that an optimizer produces.

        average = decay * average + (1 - decay) * params    after each update

    The average starts at the initial parameters, so it needs no bias correction.
    Training is unchanged; evaluation, prediction and the best checkpoint use the
    average. Put it outermost, or inside `optax.MultiSteps` so that it counts
    accumulated updates.

    Args:
        optimizer: Any optax transformation.
        decay: In [0, 1); 0 is the parameters themselves.

    Raises:
        ValueError: If `decay` is outside [0, 1).

    Reference:
        Polyak and Juditsky, 1992; the exponential form as in Tarvainen and Valpola,
        2017, arXiv:1703.01780, section 2.
    """
    if not 0 <= decay < 1:
        raise UserError(f"decay must be in [0, 1), got {decay}. 0.999 is usual.")

    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        # A copy: the step donates its buffers, and no buffer may be donated twice.
        return EmaState(optimizer.init(params), jax.tree.map(lambda x: x + 0, params))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise UserError("with_ema needs params in optimizer.update.")
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda a, p: decay * a + (1 - decay) * p, state.average, new
        )
        return updates, EmaState(inner, average)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(params: PyTree, opt_state: PyTree) -> PyTree:
    """Returns averaged parameters if the optimizer has them, else `params`."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, EmaState))
    for leaf in leaves:
        if isinstance(leaf, EmaState):
            return leaf.average
    return params


def variables(state: TrainState) -> dict[str, PyTree]:
    """Returns what `model.apply` needs: (averaged) parameters and collections."""
    params = averaged_params(state.params, state.opt_state)
    return {"params": params, **state.model_state}
