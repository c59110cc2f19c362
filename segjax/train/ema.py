"""An exponential moving average of the parameters, as an optimizer wrapper."""

from typing import NamedTuple

import jax
import optax

from segjax.train.state import TrainState
from segjax.typing import PyTree


class EmaState(NamedTuple):
    """The wrapped optimizer's state beside the averaged parameters."""

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
        raise ValueError(f"decay must be in [0, 1), got {decay}. 0.999 is usual.")

    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        # A copy: the step donates its buffers, and no buffer may be donated twice.
        return EmaState(optimizer.init(params), jax.tree.map(lambda x: x + 0, params))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("with_ema needs params in optimizer.update.")
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda a, p: decay * a + (1 - decay) * p, state.average, new
        )
        return updates, EmaState(inner, average)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(params: PyTree, opt_state: PyTree) -> PyTree:
    """The averaged parameters where the optimizer keeps them, else `params`."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, EmaState))
    for leaf in leaves:
        if isinstance(leaf, EmaState):
            return leaf.average
    return params


def variables(state: TrainState) -> dict[str, PyTree]:
    """What `model.apply` needs: averaged parameters, where kept, and collections."""
    params = averaged_params(state.params, state.opt_state)
    return {"params": params, **state.model_state}
