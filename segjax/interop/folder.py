"""Saving and loading variables in Orbax's format."""

import pathlib
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from segjax.errors import UserError
from segjax.typing import PyTree

_NAME = "variables"


def save(folder: pathlib.Path, variables: PyTree) -> None:
    """Saves variables, for `load`.

    Args:
        folder: Created; must not exist.
        variables: Nested dicts of arrays: collections such as `params`.

    Raises:
        ValueError: If the folder exists.
    """
    if folder.exists():
        raise UserError(
            f"{folder} exists already. Choose another folder, or remove it first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    ocp.save_checkpointables(str(folder.absolute()), {_NAME: variables})


def load(folder: pathlib.Path | str) -> dict[str, Any]:
    """Loads variables saved by `save` or `segjax import`.

    Args:
        folder: The folder passed to `save`.

    Returns:
        The variables, as NumPy arrays, for `model.apply(variables, ...)` or
        `init_from(variables)`.

    Raises:
        ValueError: If there is no such folder, or it holds no variables.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder of variables. Make one: segjax import "
            f"CHECKPOINT --model NAME --out {folder}."
        )
    tree = ocp.load_checkpointables(str(folder.absolute()))[_NAME]
    return jax.tree.map(np.asarray, tree)
