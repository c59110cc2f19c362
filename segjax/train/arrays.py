"""The arrays of a state on disk, in Orbax's format."""

import contextlib
import errno
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from segjax.files import orbax
from segjax.train.state import TrainState
from segjax.typing import PyTree

_STATE = "state"
_INDEX = "manifest.ocdbt"
"""The file of OCDBT, Orbax's format of arrays, that names the others."""
_WAIT_SECONDS = 7 * 24 * 3600
"""Orbax gives up a save after this; a process may be paused in the middle of one."""


def begin_writing(folder: pathlib.Path, state: TrainState) -> Callable[[], None]:
    """Copies a state to the host, and starts to write it.

    Every process calls it; each array is written once, by a process that has it.

    Args:
        folder: New; its parents are made.
        state: May be donated as soon as this returns.

    Returns:
        A function that waits for the end and raises what went wrong, for any thread.
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


def read(folder: pathlib.Path, like: TrainState) -> TrainState:
    """Loads a state; shapes, dtypes and shardings of `like` are those of the result.

    Without a sharding, as in `jax.eval_shape`, arrays go to the first local device.
    """
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x)), like
    )
    with orbax.plain_path(folder) as path:
        return ocp.load_checkpointables(path, {_STATE: template})[_STATE]


def _sharding(x: Any) -> jax.sharding.Sharding:
    """Where an array is to go; a key that Orbax restored says so of its two words."""
    found = x.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if x.ndim == 0 and isinstance(found, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(found.mesh, jax.sharding.PartitionSpec())
    return found


def leaves(tree: PyTree) -> dict[str, str]:
    """Leaf names, such as `params/conv/kernel`, to dtype and shape."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype}{list(leaf.shape)}"
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def check_same(
    stored: Mapping[str, str], like: TrainState, *, path: pathlib.Path
) -> None:
    """Raises a ValueError that names the first leaf in which two states differ.

    Args:
        stored: `leaves` of what was saved.
        like: What is to be loaded.
        path: The checkpoint, for the message.
    """
    wanted = leaves(like)
    # Parameters first: they name what differs best.
    for name in sorted({*stored, *wanted}, key=lambda n: (n[0] != "p", n)):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} is a checkpoint of another model or optimizer: {name} needs "
                f"{wanted.get(name, 'nothing')}, the checkpoint has "
                f"{stored.get(name, 'nothing')}. Use the flags that the run was "
                f"started with, or another --run."
            )
