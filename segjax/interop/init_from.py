"""Initialization of training from pretrained variables."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from segjax.errors import UserError
from segjax.typing import Array, PyTree


def init_from(
    variables: PyTree, *, exclude: Sequence[str] = ()
) -> Callable[[PyTree], PyTree]:
    """Makes a function that replaces freshly initialized variables by pretrained ones.

    To train a detector for other classes, exclude the layers that depend on the
    classes; to use an imported ResNet as its backbone, nest the variables accordingly:

        init_from(interop.load("coco"), exclude=[
            "params/roi_heads/box/score", "params/roi_heads/box/delta",
            "params/roi_heads/mask/logits"])
        body = interop.load("resnet18")
        init_from({name: {"body": tree} for name, tree in body.items()})

    Args:
        variables: Collections, such as those of `load`, or parts of them.
        exclude: Prefixes of paths that keep their fresh initialization.

    Returns:
        `fresh -> variables` with the same names, shapes and dtypes; may be traced.
        It raises a ValueError that names the first array that the model does not have,
        or has with another shape.
    """
    loaded = {name: x for name, x in _named(variables) if not _under(name, exclude)}

    def initialize(fresh: PyTree) -> PyTree:
        here = dict(_named(fresh))
        for name, x in loaded.items():
            if name not in here or here[name].shape != x.shape:
                has = list(here[name].shape) if name in here else "nothing"
                raise UserError(
                    f"{name} is {list(x.shape)} in the loaded variables, the model has "
                    f"{has} there. Use the imported model, or exclude={[name]}."
                )
        return jax.tree.map_with_path(
            lambda path, x: jnp.asarray(loaded.get(_name(path), x), x.dtype),
            fresh,
        )

    return initialize


def _named(tree: PyTree) -> list[tuple[str, Array]]:
    return [(_name(k), x) for k, x in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(f"{name}/".startswith(f"{prefix}/") for prefix in prefixes)
