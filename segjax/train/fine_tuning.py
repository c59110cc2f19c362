"""Freezing parameters and learning rates by layer, as optax transformations."""

from collections.abc import Callable, Hashable, Mapping

import jax
import jax.numpy as jnp
import optax

from segjax.errors import UserError
from segjax.typing import PyTree

IsFrozen = Callable[[str], bool]
Factor = float | int | optax.Schedule


def freeze(
    optimizer: optax.GradientTransformation, is_frozen: IsFrozen
) -> optax.GradientTransformationExtraArgs:
    """Updates only a part of the parameters.

        train.freeze(optax.adamw(1e-3), lambda path: path.startswith("encoder/"))

    Frozen parameters have no optimizer state, weight decay or part in the gradient's
    norm. Running statistics of batch norm are not parameters: they are fixed by
    `norm=layers.frozen_norm`.

    Args:
        optimizer: Any optax transformation.
        is_frozen: `path -> whether to keep the parameter`; a path is the names of
            modules and array, such as "encoder/layer1_0/conv1/conv/kernel".

    Returns:
        The optimizer. Its `init` raises a ValueError if no parameter is frozen, or all.
    """

    def label(params: PyTree) -> PyTree:
        labels = _by_path(params, lambda path: _LABELS[bool(is_frozen(path))])
        found = set(jax.tree.leaves(labels))
        if len(found) == 1:
            what = "every" if found == {_LABELS[True]} else "no"
            raise UserError(
                f"freeze selects {what} parameter. Paths are such as "
                f"{_first_path(params)}."
            )
        return labels

    parts: dict[Hashable, optax.GradientTransformation] = {
        _LABELS[False]: optimizer,
        _LABELS[True]: optax.set_to_zero(),
    }
    return optax.multi_transform(parts, label)


_LABELS = {False: "trained", True: "frozen"}


def scale_updates(factors: Mapping[str, Factor]) -> optax.GradientTransformation:
    """Multiplies updates by a factor for each module: learning rates by layer.

        optax.chain(optax.adamw(rate), train.scale_updates({"encoder": 0.1}))

    A factor may be a schedule, `step -> factor`: one that is 0 for the first steps
    trains the other layers first.

    Args:
        factors: Factors of modules or single parameters, such as "encoder",
            "encoder/block3" or "head/bias". The longest that fits a parameter's path
            counts; what none fits keeps its update.

    Returns:
        A transformation for the end of a chain. Its `init` raises a ValueError if a
        name fits no parameter.
    """

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        found = set(jax.tree.leaves(_by_path(params, fitting)))
        for name in factors:
            if name not in found:
                raise UserError(
                    f"scale_updates: no parameter for {name!r}. Paths are such as "
                    f"{_first_path(params)}."
                )
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def fitting(path: str) -> str:
        fits = [x for x in factors if path == x or path.startswith(f"{x}/")]
        return max(fits, key=len, default="")

    def update(updates, state, params=None):
        del params

        def scale(path: str, update: jax.Array) -> jax.Array:
            factor = factors.get(fitting(path), 1)
            factor = factor(state.count) if callable(factor) else factor
            return jnp.asarray(factor, update.dtype) * update

        scaled = jax.tree.map_with_path(lambda k, x: scale(_name(k), x), updates)
        return scaled, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def _by_path(tree: PyTree, function: Callable[[str], object]) -> PyTree:
    return jax.tree.map_with_path(lambda path, _: function(_name(path)), tree)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _first_path(tree: PyTree) -> str:
    return _name(jax.tree_util.tree_flatten_with_path(tree)[0][0][0])
