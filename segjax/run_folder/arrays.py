"""The arrays of a state on disk, in Orbax's format."""

import contextlib
import errno
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from segjax.errors import UserError
from segjax.files import orbax
from segjax.typing import PyTree

_STATE = "state"
_INDEX = "manifest.ocdbt"
"""The file of OCDBT, Orbax's format of arrays, that names the others."""
_WAIT_SECONDS = 7 * 24 * 3600
"""Timeout of a save: the process may be paused in the middle of one, for days."""


def start_writing(folder: pathlib.Path, state: PyTree) -> Callable[[], None]:
    """Copies a state to the host and starts to write it in the background.

    Every process calls this; each array is written once, by a process that has it.

    Args:
        folder: A new folder; its parents are created.
        state: The state; it may be donated as soon as this returns.

    Returns:
        A function that waits for the end and raises errors; callable in any thread.
    """
    links = contextlib.ExitStack()
    path = links.enter_context(orbax.plain_path(folder))
    try:
        patient = ocp.options.AsyncOptions(timeout_secs=_WAIT_SECONDS)
        with ocp.Context(async_options=patient):
            response = ocp.save_checkpointables_async(path, {_STATE: state})
    except BaseException:
        links.close()
        raise

    def wait() -> None:
        with links:
            response.result()
        if jax.process_index() == 0 and not (folder / _STATE / _INDEX).is_file():
            raise OSError(errno.EIO, "the arrays were not written", str(folder))

    return wait


def read(folder: pathlib.Path, like: PyTree) -> PyTree:
    """Loads a state with the shapes, dtypes and shardings of `like`.

    Leaves without a sharding, as of `jax.eval_shape`, go to the first local device.
    """
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x)), like
    )
    with orbax.plain_path(folder) as path:
        return ocp.load_checkpointables(path, {_STATE: template})[_STATE]


def _sharding(x: Any) -> jax.sharding.Sharding:
    """The target of a leaf. A key that Orbax restored has the sharding of its words."""
    found = x.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if x.ndim == 0 and isinstance(found, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(found.mesh, jax.sharding.PartitionSpec())
    return found


def leaves(tree: PyTree) -> dict[str, str]:
    """Maps leaf names, such as `params/conv/kernel`, to dtype and shape."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype}{list(leaf.shape)}"
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def check_same(stored: Mapping[str, str], like: PyTree, *, path: pathlib.Path) -> None:
    """Raises a ValueError that names the first leaf in which two states differ.

    Args:
        stored: `leaves` of the saved state.
        like: The state that is to be loaded.
        path: The checkpoint, for the message.
    """
    wanted = leaves(like)
    # Parameters first: they name what differs best.
    for name in sorted({*stored, *wanted}, key=lambda n: (n[0] != "p", n)):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"{path} is a checkpoint of another model or optimizer: {name} needs "
                f"{wanted.get(name, 'nothing')}, the checkpoint has "
                f"{stored.get(name, 'nothing')}. Use the flags that the run was "
                f"started with, or another --run."
            )
