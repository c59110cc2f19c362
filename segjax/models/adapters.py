"""Adapters that give Flax NNX and Equinox modules the interface of linen modules.

`init(key, **inputs, train=)` returns variables, and `apply(variables, **inputs,
train=, rngs=, mutable=)` runs the network. Variables are nested dictionaries of arrays:
`params` is trained by the optimizer, `state` holds everything else, such as running
averages.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from segjax.errors import UserError
from segjax.typing import Array, Image, Key, PyTree


@dataclasses.dataclass(frozen=True)
class FromNNX:
    """A Flax NNX module as a model; see `from_nnx`.

    Attributes:
        make: `rngs -> nnx.Module`.
        margin: Pixels that the module trims on each side of the image.
    """

    make: Callable[..., Any]
    margin: int = 0

    def init(self, key: Key, *, train: bool = False, **inputs: Array) -> PyTree:
        """Initializes variables. Inputs are ignored: NNX modules know their shapes."""
        del train, inputs
        from flax import nnx  # Loads optax, which prediction does not need.

        _, params, _, state = _split(self.make(nnx.Rngs(key)))
        return _variables(params, state)

    def apply(
        self,
        variables: PyTree,
        *,
        train: bool = False,
        rngs: Mapping[str, Key] | None = None,
        mutable: Sequence[str] | bool = False,
        **inputs: Array,
    ) -> Any:
        """Runs the module on its inputs.

        Args:
            variables: Variables as returned by `init`.
            train: True calls `module.train()` first, False `module.eval()`.
            rngs: Keys by stream; streams without a key use that of `params`.
            mutable: Collections to return as well, as in linen.
            **inputs: Arguments of the module's call.

        Returns:
            The outputs of the module; with `mutable`, (outputs, updated collections).
        """
        from flax import nnx

        spec = nnx.eval_shape(lambda: self.make(nnx.Rngs(0)))
        graph, params, streams, state = _split(spec)
        module = nnx.merge(
            graph,
            _restored(params, variables["params"]),
            _seeded(streams, rngs or {}),
            _restored(state, variables.get("state", {})),
        )
        module.train() if train else module.eval()
        outputs: Any = module(**inputs)  # pyright: ignore[reportCallIssue]
        after = _variables(*_split(module)[1::2])
        return _with_mutable(outputs, after, mutable)


def from_nnx(make: Callable[..., Any], *, margin: int = 0) -> FromNNX:
    """Makes a model of a Flax NNX module.

        models.from_nnx(lambda rngs: Net(classes=3, rngs=rngs))

    `nnx.Param` is trained. Other variables, such as `nnx.BatchStat`, are in `state`,
    except for random streams, whose keys are set in each call.

    Args:
        make: `rngs -> module`, whose call takes `image` [B, H, W, K] and returns
            logits [B, H, W, C].
        margin: Pixels that the module trims on each side of the image.
    """
    return FromNNX(make, margin)


@dataclasses.dataclass(frozen=True)
class FromEquinox:
    """An Equinox module as a model; see `from_equinox`.

    Attributes:
        make: `key -> eqx.Module`.
        margin: Pixels that the module trims on each side of the image.
    """

    make: Callable[[Key], Any]
    margin: int = 0

    def init(self, key: Key, *, train: bool = False, **inputs: Array) -> PyTree:
        """Initializes variables. Inputs are ignored: modules know their shapes."""
        import equinox as eqx

        del train, inputs
        module = self.make(key)
        leaves = jax.tree.leaves(module, is_leaf=_is_state_index)
        if isinstance(module, tuple) or any(map(_is_state_index, leaves)):
            raise UserError(
                "from_equinox needs a module without eqx.nn.State, got a stateful one. "
                "Use eqx.nn.GroupNorm in place of eqx.nn.BatchNorm."
            )
        params, rest = eqx.partition(module, eqx.is_inexact_array)
        return _variables(params, eqx.filter(rest, eqx.is_array))

    def apply(
        self,
        variables: PyTree,
        *,
        image: Image,
        train: bool = False,
        rngs: Mapping[str, Key] | None = None,
        mutable: Sequence[str] | bool = False,
    ) -> Any:
        """Runs the module on each image of a batch; arguments as in `FromNNX.apply`."""
        import equinox as eqx

        spec = eqx.filter_eval_shape(self.make, jax.random.key(0))
        arrays, static = eqx.partition(spec, _is_spec)
        floats = lambda x: _is_spec(x) and jnp.issubdtype(x.dtype, jnp.inexact)  # noqa: E731
        params, state = eqx.partition(arrays, floats)
        params = _restored(params, variables["params"])
        state = _restored(state, variables.get("state", {}))
        module = eqx.combine(params, state, static)
        module = eqx.nn.inference_mode(module, value=not train)

        def one(pixels: Array, key: Key) -> Array:
            return jnp.moveaxis(module(jnp.moveaxis(pixels, -1, 0), key=key), 0, -1)

        keys = jax.random.split(_stream_key(rngs or {}, "dropout"), len(image))
        outputs = jax.vmap(one)(image, keys)
        return _with_mutable(outputs, variables, mutable)


def from_equinox(make: Callable[[Key], Any], *, margin: int = 0) -> FromEquinox:
    """Makes a model of an Equinox module; needs the package `equinox`.

        models.from_equinox(lambda key: Net(classes=3, key=key))

    Floating-point arrays are trained. Modules with `eqx.nn.State`, such as those with
    `eqx.nn.BatchNorm`, are not supported; `eqx.nn.GroupNorm` needs no state.

    Args:
        make: `key -> module`. The module is called as `module(image, key=key)` with one
            image [K, H, W], channels first as in Equinox's layers, and returns logits
            [C, H, W]. In training, dropout draws from `key`.
        margin: Pixels that the module trims on each side of the image.

    Raises:
        ValueError: From `init`, if the module has `eqx.nn.State`.
    """
    return FromEquinox(make, margin)


def _split(module: Any) -> Any:
    """Structure, parameters, random streams, all other variables."""
    from flax import nnx

    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _seeded(streams: Any, rngs: Mapping[str, Key]) -> Any:
    """Random streams with the keys of a call, a different key for each stream."""
    from flax import nnx

    made = {}
    for number, (path, variable) in enumerate(nnx.to_flat_state(streams)):
        if isinstance(variable, nnx.RngKey):
            key = jax.random.fold_in(_stream_key(rngs, str(variable.tag)), number)
            made[path] = variable.replace(key)
        else:
            made[path] = variable.replace(jnp.zeros((), jnp.uint32))
    return nnx.from_flat_state(made)


def _stream_key(rngs: Mapping[str, Key], name: str) -> Key:
    """The key of a stream; a constant in evaluation, where it is not used."""
    return rngs.get(name, rngs.get("params", jax.random.key(0)))


def _variables(params: PyTree, state: PyTree) -> dict[str, Any]:
    made = {"params": _nested(params), "state": _nested(state)}
    return made if made["state"] else {"params": made["params"]}


def _with_mutable(
    outputs: Any, variables: PyTree, mutable: Sequence[str] | bool
) -> Any:
    if mutable is False:
        return outputs
    names = variables if mutable is True else mutable
    return outputs, {name: variables[name] for name in names}


def _nested(tree: PyTree) -> dict[str, Any]:
    """Converts a tree to nested dictionaries of arrays, by the names in their paths."""
    made: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        *folders, name = _names(path)
        place = made
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = leaf
    return made


def _restored(like: PyTree, nested: Mapping[str, Any]) -> PyTree:
    """Inverse of `_nested`: replaces the leaves of `like` by these arrays."""

    def find(path, _):
        found: Any = nested
        for name in _names(path):
            found = found[name]
        return found

    return jax.tree_util.tree_map_with_path(find, like)


def _names(path: Sequence[Any]) -> list[str]:
    names = [jax.tree_util.keystr((k,), simple=True) for k in path]
    return names[:-1] if len(names) > 1 and names[-1] == "value" else names


def _is_spec(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _is_state_index(x: Any) -> bool:
    import equinox as eqx

    return isinstance(x, eqx.nn.StateIndex)
