"""Communication between the processes of a distributed run."""

import collections
import io
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from segjax.errors import UserError
from segjax.typing import PyTree

_MAX_BYTES = 2**16


def broadcast_from_first(value: Any) -> Any:
    """Returns the first process's value in all processes, which must all call this.

    Args:
        value: JSON values of up to 64 KiB. Tuples come back as lists.
    """
    if jax.process_count() == 1:
        return json.loads(json.dumps(value))
    text = json.dumps(value).encode().ljust(_MAX_BYTES)
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))
    return json.loads(bytes(np.asarray(sent)))


def gather(tree: PyTree) -> list[PyTree]:
    """Returns the value of every process, in their order; all must call this.

    Args:
        tree: Of NumPy arrays and numbers; its structure is the same in all processes,
            the shapes of its arrays need not be.
    """
    if jax.process_count() == 1:
        return [tree]
    leaves, structure = jax.tree.flatten(tree)
    file = io.BytesIO()
    np.savez(file, *[np.asarray(x) for x in leaves])
    mine = np.frombuffer(file.getvalue(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(mine.size))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: mine.size] = mine
    everyone = multihost_utils.process_allgather(padded)
    trees = []
    for raw, size in zip(everyone, sizes, strict=True):
        with np.load(io.BytesIO(raw[: int(size)].tobytes()), allow_pickle=False) as got:
            trees.append(jax.tree.unflatten(structure, [got[k] for k in got.files]))
    return trees


def run_on_first(work: Callable[[], None]) -> None:
    """Runs a function in the first process only; its ValueError is raised in all."""
    if jax.process_count() == 1:
        return work()
    problem = None
    if jax.process_index() == 0:
        try:
            work()
        except ValueError as error:
            problem = str(error)
    if problem := broadcast_from_first(problem):
        raise UserError(problem)


def barrier(name: str) -> None:
    """Blocks until every process has called this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed_stop(
    stop: Callable[[], int | None], mesh: Mesh, *, delay: int = 2
) -> Callable[[], int | None]:
    """Makes all processes stop at the same step when one receives a signal.

    Each call starts an all-reduce (maximum) of the signal numbers and reads the result
    of the one started `delay` calls earlier, which has finished by then, so no process
    waits. `multihost_utils.reached_preemption_sync_point` does not see Ctrl-C, and its
    notifier needs SIGTERM for itself.

    Args:
        stop: Returns the signal that this process received, or None.
        mesh: All devices.
        delay: Steps between a signal and the stop; also the number of steps that a
            process may be ahead of the slowest one.

    Returns:
        A function to call after every step: the signal that any process received, or
        None. With a single process this is `stop`.
    """
    if jax.process_count() == 1:
        return stop
    local = sum(d.process_index == jax.process_index() for d in mesh.devices.flat)
    maximum = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    pending: collections.deque[jax.Array] = collections.deque()

    def signal_of_any() -> int | None:
        mine = np.full(local, stop() or 0, np.int32)
        pending.append(maximum(jax.make_array_from_process_local_data(split, mine)))
        if len(pending) <= delay:
            return None
        return int(pending.popleft()) or None

    return signal_of_any
