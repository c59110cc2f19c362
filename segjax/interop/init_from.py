"""Beginning a training from variables that were imported."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from segjax.typing import Array, PyTree


def init_from(
    variables: PyTree, *, exclude: Sequence[str] = ()
) -> Callable[[PyTree], PyTree]:
    """A function from fresh variables to the same with imported ones in their place.

    To train a detector for other classes, exclude the layers that know of classes; to
    train one on an imported ResNet, name its place:

        init_from(interop.load("coco"), exclude=[
            "params/roi_heads/box/score", "params/roi_heads/box/delta",
            "params/roi_heads/mask/logits"])
        body = interop.load("resnet18")
        init_from({name: {"body": tree} for name, tree in body.items()})

    Args:
        variables: Collections, such as `load` gives; parts of them will do.
        exclude: Beginnings of paths that stay as they are, whatever `variables` has
            there.

    Returns:
        `fresh -> variables` of the same names, shapes and dtypes; may be traced.
        It raises a ValueError that names the first array which the model has not, or
        has in another shape.
    """
    loaded = {name: x for name, x in _named(variables) if not _under(name, exclude)}

    def start(fresh: PyTree) -> PyTree:
        here = dict(_named(fresh))
        for name, x in loaded.items():
            if name not in here or here[name].shape != x.shape:
                has = list(here[name].shape) if name in here else "nothing"
                raise ValueError(
                    f"{name} is {list(x.shape)} in what is loaded, the model has {has} "
                    f"there. Give the model that was imported, or exclude={[name]}."
                )
        return jax.tree.map_with_path(
            lambda path, x: jnp.asarray(loaded.get(_name(path), x), x.dtype),
            fresh,
        )

    return start


def _named(tree: PyTree) -> list[tuple[str, Array]]:
    return [(_name(k), x) for k, x in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(f"{name}/".startswith(f"{prefix}/") for prefix in prefixes)
