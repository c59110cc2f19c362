"""What several processes must decide alike."""

import collections
import io
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from segjax.train import parallel
from segjax.typing import PyTree

_MOST = 2**16


def of_the_first(value: Any) -> Any:
    """What the first process passed, in all of them; each must call this.

    Args:
        value: JSON values of up to 64 KiB. They come back as JSON has them: tuples
            as lists.
    """
    if jax.process_count() == 1:
        return json.loads(json.dumps(value))
    text = json.dumps(value).encode().ljust(_MOST)
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))
    return json.loads(bytes(np.asarray(sent)))


def of_each(tree: PyTree) -> list[PyTree]:
    """What each process passed, in their order; all must call this.

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


def on_the_first(work: Callable[[], None]) -> None:
    """Runs something in the first process; its ValueError is raised in all of them."""
    if jax.process_count() == 1:
        return work()
    problem = None
    if jax.process_index() == 0:
        try:
            work()
        except ValueError as error:
            problem = str(error)
    if problem := of_the_first(problem):
        raise ValueError(problem)


def on_stopping(
    stop: Callable[[], int | None], mesh: Mesh, *, late: int = 2
) -> Callable[[], int | None]:
    """A question after each step whose answer is the same in all processes.

    Each call begins a maximum over the processes and reads the one begun `late` calls
    ago: it is done by then, as the steps are that were begun before it, so nobody
    waits. A signal to one process stops all at the same step, `late` steps later.

    Args:
        stop: The signal that this process received, or None.
        mesh: Of all devices.
        late: Steps between a request and its answer; also the steps that a process
            may be ahead of the slowest one.

    Returns:
        The signal that any process received, or None. One process alone asks itself.
    """
    if jax.process_count() == 1:
        return stop
    here = sum(d.process_index == jax.process_index() for d in mesh.devices.flat)
    most = jax.jit(jnp.max, out_shardings=parallel.replicated(mesh))
    asked: collections.deque[jax.Array] = collections.deque()

    def agreed() -> int | None:
        mine = np.full(here, stop() or 0, np.int32)
        split = parallel.split_over(mesh)
        asked.append(most(jax.make_array_from_process_local_data(split, mine)))
        if len(asked) <= late:
            return None
        return int(asked.popleft()) or None

    return agreed


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
