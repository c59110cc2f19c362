"""Initialization of training from pretrained variables."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from segjax.errors import UserError
from segjax.typing import Array, PyTree


def init_from(
    variables: PyTree, *, exclude: Sequence[str] = (), into: str = ""
) -> Callable[[PyTree], PyTree]:
    """Makes a function that replaces freshly initialized variables by pretrained ones.

    To train a detector for other classes, exclude the layers that depend on the
    classes, or use `init_matching`; name the part of the model to which they belong:

        init_from(interop.load("coco"), exclude=[
            "params/roi_heads/box/score", "params/roi_heads/box/delta",
            "params/roi_heads/mask/logits"])
        init_from(interop.load("resnet18"), into="body")

    Args:
        variables: Collections, such as those of `load`, or parts of them.
        exclude: Prefixes of paths that keep their fresh initialization.
        into: The module of the model that they are for, such as "encoder" or "body".

    Returns:
        `fresh -> variables` with the same names, shapes and dtypes; may be traced.
        It raises a ValueError that names the arrays that the model does not have, or
        has with another shape.
    """
    loaded = _loaded(variables, into)
    loaded = {name: x for name, x in loaded.items() if not _under(name, exclude)}

    def initialize(fresh: PyTree) -> PyTree:
        here = dict(_named(fresh))
        wrong = _misfits(loaded, here)
        if wrong:
            name = wrong[0]
            has = list(here[name].shape) if name in here else "nothing"
            others = f", and {len(wrong) - 1} more do not fit" if wrong[1:] else ""
            raise UserError(
                f"{name} is {list(loaded[name].shape)} in the loaded variables, the "
                f"model has {has} there{others}. Use the imported model, or "
                f"exclude={_layers(wrong)}."
            )
        return _replaced(fresh, loaded)

    return initialize


def init_matching(
    variables: PyTree, *, into: str = "", report: Callable[[str], None] = print
) -> Callable[[PyTree], PyTree]:
    """Works like `init_from`, but keeps fresh layers where the loaded ones do not fit.

    For another number of classes, or another head. A layer of which one array does not
    fit stays fresh as a whole.

    Args:
        variables: As in `init_from`.
        into: As in `init_from`.
        report: Called with one line that names the layers that were not taken, and
            those that the variables lack.

    Returns:
        `fresh -> variables`. It raises a ValueError if nothing fits.
    """
    loaded = _loaded(variables, into)

    def initialize(fresh: PyTree) -> PyTree:
        here = dict(_named(fresh))
        layers = _layers(_misfits(loaded, here))
        taken = {name: x for name, x in loaded.items() if not _under(name, layers)}
        if not taken:
            raise UserError(
                f"nothing of the loaded variables fits the model: they have "
                f"{next(iter(loaded), 'nothing')}, it has {next(iter(here))}. Name the "
                f"part of the model that they are for: into=NAME."
            )
        new = _layers([name for name in here if name not in taken])
        unused = [x for x in layers if x not in new]
        parts = [f"New: {', '.join(new) or 'nothing'}."]
        parts += [f"Not taken: {', '.join(unused)}."] if unused else []
        report(f"Initialized {len(taken)} arrays. {' '.join(parts)}")
        return _replaced(fresh, taken)

    return initialize


def _loaded(variables: PyTree, into: str) -> dict[str, Array]:
    if into:
        variables = {collection: {into: x} for collection, x in variables.items()}
    return dict(_named(variables))


def _misfits(loaded: Mapping[str, Array], here: Mapping[str, Array]) -> list[str]:
    return [k for k, x in loaded.items() if k not in here or here[k].shape != x.shape]


def _layers(names: Sequence[str]) -> list[str]:
    """The layers of arrays: `params/head` of `params/head/kernel`."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in names))


def _replaced(fresh: PyTree, loaded: Mapping[str, Array]) -> PyTree:
    return jax.tree.map_with_path(
        lambda path, x: jnp.asarray(loaded.get(_name(path), x), x.dtype), fresh
    )


def _named(tree: PyTree) -> list[tuple[str, Array]]:
    return [(_name(k), x) for k, x in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(f"{name}/".startswith(f"{prefix}/") for prefix in prefixes)
