"""Meshes, copies to devices, and the compiled forms of a step: jit and pmap."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from segjax.errors import UserError
from segjax.typing import Batch, PyTree

AXIS = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a 1-D mesh over all devices of all processes, or over the given ones."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the state: a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies arrays, which every process has, to all devices of the mesh."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            numbers = put(jax.random.key_data(x))
            return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(put, tree)


def check_divides(batch_size: int, devices: int, *, micro_batches: int = 1) -> None:
    """Raises a ValueError unless images divide evenly over devices and micro-batches.

    Args:
        batch_size: Images per update.
        devices: The number of devices of all processes.
        micro_batches: The number of micro-batches of an update.
    """
    parts = devices * micro_batches
    if batch_size % parts:
        times = f" times {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise UserError(
            f"The batch must divide over {devices} devices{times}, got {batch_size} "
            f"images. Use --batch-size {-(-batch_size // parts) * parts}."
        )


def jit_step(step: Callable, mesh: Mesh | None = None) -> Callable:
    """Compiles one program over the whole batch, which XLA splits over the mesh.

    Args:
        step: `(state, batch) -> (state, scalars)`, built without `axis_name`.
        mesh: All devices unless given.

    Returns:
        The compiled step. The state passed to it is donated. Your own loop is as fast
        as segjax's on a CPU with `lower(state, batch).compile(compiler_options=
        segjax.compiler.compiler_options())`.
    """
    mesh = make_mesh() if mesh is None else mesh
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(replicated(mesh), split_over(mesh)),
        out_shardings=replicated(mesh),
    )


def pmap_step(step: Callable) -> Callable:
    """Compiles one program per device; batch leaves are [devices, B / devices, ...].

    The state has no device axis, so checkpoints do not depend on the device count.

    Args:
        step: `(state, batch) -> (state, scalars)`, built with `axis_name=AXIS`. A
            model with batch norm needs `axis_name=AXIS` too.

    Returns:
        The compiled step. The state passed to it is donated.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
    )


def split_for_pmap(batch: Batch, devices: int) -> PyTree:
    """Reshapes [B, ...] leaves to [devices, B / devices, ...]."""
    check_divides(len(batch["image"]), devices)
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), dict(batch))


def to_device(batch: Batch, mesh: Mesh) -> PyTree:
    """Copies this process's part of a global batch to the mesh, split by rows."""
    sharding = split_over(mesh)
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)  # All arrays in one call.
    return {
        k: jax.make_array_from_process_local_data(sharding, np.asarray(v))
        for k, v in batch.items()
    }


def to_host(tree: PyTree) -> PyTree:
    """Fetches arrays; if they are split over processes, the rows of this process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def fetch(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return jax.device_get(x)
        if x.is_fully_replicated:
            return np.asarray(x.addressable_data(0))
        shards = sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)
        return np.concatenate([np.asarray(s.data) for s in shards])

    return jax.tree.map(fetch, tree)


def to_devices(
    batches: Iterable[Batch], mesh: Mesh, *, ahead: int = 2
) -> Iterator[PyTree]:
    """Copies batches to the mesh ahead of their use.

    Args:
        batches: This process's part of each global batch, on the host.
        mesh: Where the global batch goes, split by its first axis.
        ahead: See `prefetch`.

    Yields:
        Global batches of device arrays, in the same order.
    """
    return prefetch(functools.partial(to_device, mesh=mesh), batches, ahead=ahead)


def prefetch(
    put: Callable[[Any], PyTree], items: Iterable[Any], *, ahead: int = 2
) -> Iterator[PyTree]:
    """Calls `put` on items ahead of their use.

    Args:
        put: Copies an item to devices. Copies are asynchronous, so two in advance hide
            the transfer behind a step.
        items: What is to be copied.
        ahead: Items put in advance.
    """
    source = iter(items)
    queue = collections.deque(put(x) for x in itertools.islice(source, ahead))
    while queue:
        yield queue.popleft()
        queue.extend(put(x) for x in itertools.islice(source, 1))
