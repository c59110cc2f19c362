"""Saving and loading variables in Orbax's format."""

import glob
import pathlib
import shutil
import time
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from segjax.errors import UserError
from segjax.files import orbax, writing
from segjax.typing import PyTree

_NAME = "variables"


def save(folder: pathlib.Path, variables: PyTree) -> None:
    """Saves variables, for `load`.

    Args:
        folder: Created; must not exist.
        variables: Nested dicts of arrays: collections such as `params`.

    Raises:
        ValueError: If the folder exists, has a name that TensorStore would read as a
            pattern, or cannot be written, as on a full disk: then there is none.
    """
    if folder.exists():
        raise UserError(
            f"{folder} exists already. Choose another folder, or remove it first."
        )
    if not orbax.is_plain(folder.name):
        raise UserError(
            f"{folder} needs a name without any of []{{}}*?\\%#$, which TensorStore "
            f"reads as a pattern. Name another folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with orbax.quiet(), orbax.plain_path(folder) as path:
            ocp.save_checkpointables(path, {_NAME: variables})
    except Exception as error:
        reason = writing.write_error(error)
        if reason is None:
            raise
        _remove_parts(folder)
        raise UserError(
            f"{folder} could not be written: {reason}. Fix the cause, or name another "
            f"folder."
        ) from error


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
    with orbax.plain_path(folder) as path:
        tree = ocp.load_checkpointables(path)[_NAME]
    return jax.tree.map(np.asarray, tree)


def _remove_parts(folder: pathlib.Path) -> None:
    """Removes what Orbax left; its writers of other arrays may not have ended yet."""
    for _ in range(20):
        time.sleep(0.05)
        parts = list(folder.parent.glob(f"{glob.escape(folder.name)}.orbax-*"))
        if not parts:
            return
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
