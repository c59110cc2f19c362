"""One program for the steps of one seed or many: unrolled, or mapped over an axis.

A group is a tree like a state or a batch whose arrays hold the same leaf of several
seeds along a new first axis; one program takes a tuple of groups. On one device the
unrolled form needs no such axis, and a group is the tree of one seed itself.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from segjax.train import parallel
from segjax.train.step import Update
from segjax.typing import Array, Batch, PyTree

_AXIS = "seed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Together:
    """A step of one or many seeds, and how their trees are packed for it.

    Attributes:
        step: `(groups of states, groups of batches) -> (groups of states, metrics of
            each seed)`, under `jax.jit`. It takes ownership of the states.
        mesh: The devices, over which the seeds of a group are split, or the batch of
            one seed.
        rows: Seeds in a group; None where a group is one seed without a new axis.
        batch_is_split: Whether the mesh splits batches instead of seeds.
    """

    step: Callable
    mesh: Mesh
    rows: int | None
    batch_is_split: bool = False

    def put(self, trees: Sequence[PyTree]) -> tuple[PyTree, ...]:
        """Packs the states of all seeds, in their order, and copies them to devices."""
        if self.batch_is_split:
            return tuple(parallel.replicate(tree, self.mesh) for tree in trees)
        if self.rows is None:
            groups, spec = tuple(trees), PartitionSpec()
        else:
            starts = range(0, len(trees), self.rows)
            parts = [trees[i : i + self.rows] for i in starts]
            groups = tuple(jax.tree.map(_stack, *part) for part in parts)
            spec = PartitionSpec(_AXIS)
        return jax.device_put(groups, NamedSharding(self.mesh, spec))

    def put_batches(self, batches: Sequence[Batch]) -> tuple[PyTree, ...]:
        """Packs the batches of all seeds, and copies them to devices."""
        if self.batch_is_split:
            return tuple(parallel.to_device(batch, self.mesh) for batch in batches)
        return self.put(batches)

    def take(self, groups: tuple[PyTree, ...], place: int) -> PyTree:
        """The tree of the seed at a place again, as `put` was given it."""
        if self.rows is None:
            return groups[place]
        group, row = divmod(place, self.rows)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return _row(groups[group], row, everywhere)


def single(step: Update, *, mesh: Mesh) -> Together:
    """The step of one seed, whose batch is split over the mesh by the compiler.

    Args:
        step: `(state, batch) -> (state, metrics)`, built without `axis_name`.
        mesh: Of `parallel.make_mesh`.
    """

    def train_step(states: tuple[PyTree, ...], batches: tuple[PyTree, ...]):
        (state,), (batch,) = states, batches
        state, metrics = step(state, batch)
        return (state,), (metrics,)

    everywhere = parallel.replicated(mesh)
    compiled = jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(everywhere, parallel.split_over(mesh)),
        out_shardings=everywhere,
    )
    return Together(step=compiled, mesh=mesh, rows=None, batch_is_split=True)


def unrolled(step: Update, *, mesh: Mesh) -> Together:
    """Each seed's step after the other's in one program, S / devices on a device.

    On one device this is bit for bit the step of a single run, compiled S times into
    one program: compilation takes S times as long.

    Args:
        step: `(state, batch) -> (state, metrics)`, built without `axis_name`.
        mesh: From `mesh_of_seeds`.
    """
    if mesh.size == 1:
        # A new axis, though of length 1, makes XLA choose other layouts, and rounding
        # then differs from a single run.
        def many(states: tuple[PyTree, ...], batches: tuple[PyTree, ...]):
            done = [step(s, b) for s, b in zip(states, batches, strict=True)]
            return tuple(s for s, _ in done), [metrics for _, metrics in done]

        return Together(step=jax.jit(many, donate_argnums=0), mesh=mesh, rows=None)

    def one(state: PyTree, batch: PyTree):
        first = jax.tree.map(lambda x: x[0], (state, batch))
        return jax.tree.map(lambda x: x[None], step(*first))

    return _split(one, mesh, rows=mesh.size)


def vmapped(step: Update, *, mesh: Mesh, seeds: int) -> Together:
    """`jax.vmap` of the step: one program whose size does not depend on S.

    Args:
        step: `(state, batch) -> (state, metrics)`, built without `axis_name`.
        mesh: From `mesh_of_seeds`.
        seeds: S.
    """
    return _split(jax.vmap(step), mesh, rows=seeds)


def form_of(step: Update, *, seeds: int) -> Together:
    """The form for a number of seeds on all devices: one seed splits its batch."""
    if seeds == 1:
        return single(step, mesh=parallel.make_mesh())
    return fastest(step, mesh=mesh_of_seeds(seeds), seeds=seeds)


def fastest(step: Update, *, mesh: Mesh, seeds: int) -> Together:
    """The form that suits the device.

    Four seeds of experiments/digits_unet.py on two CPU cores, beside four single
    steps: unrolled 0.84 times as long, vmapped 2.4 times (XLA makes a grouped
    convolution of it, which is slow there). Not measured on a GPU or TPU, where a
    larger program is expected to fill the device better.
    """
    if jax.default_backend() == "cpu":
        return unrolled(step, mesh=mesh)
    return vmapped(step, mesh=mesh, seeds=seeds)


def mesh_of_seeds(seeds: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of as many devices as divide the seeds evenly; others stay idle.

    Args:
        seeds: S, at least 1.
        devices: All devices unless given.
    """
    devices = jax.devices() if devices is None else devices
    count = max(n for n in range(1, len(devices) + 1) if seeds % n == 0)
    return Mesh(np.asarray(devices[:count]), (_AXIS,), axis_types=(AxisType.Auto,))


def _split(step_of_group: Callable, mesh: Mesh, *, rows: int) -> Together:
    """A step over groups of `rows` seeds, each group split over the mesh."""
    spec = PartitionSpec(_AXIS)

    def local(states: tuple[PyTree, ...], batches: tuple[PyTree, ...]):
        pairs = zip(states, batches, strict=True)
        done = [step_of_group(s, b) for s, b in pairs]
        return tuple(s for s, _ in done), tuple(metrics for _, metrics in done)

    # Seeds are independent, so nothing is replicated that could be checked.
    split = jax.shard_map(
        local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )

    def many(states: tuple[PyTree, ...], batches: tuple[PyTree, ...]):
        states, metrics = split(states, batches)
        # Apart already in the program, which is cheaper than slicing each one after.
        apart = [
            jax.tree.map(lambda x, row=row: x[row], group)
            for group in metrics
            for row in range(rows)
        ]
        return states, apart

    shardings = NamedSharding(mesh, spec), NamedSharding(mesh, PartitionSpec())
    step = jax.jit(many, donate_argnums=0, out_shardings=shardings)
    return Together(step=step, mesh=mesh, rows=rows)


@functools.partial(jax.jit, static_argnums=2)
def _row(group: PyTree, row: int | Array, sharding: NamedSharding) -> PyTree:
    """One program for all rows: an index that is not traced would make one each."""
    return jax.lax.with_sharding_constraint(
        jax.tree.map(lambda x: x[row], group), sharding
    )


def _stack(*leaves: Array) -> Array:
    """[S, ...]; of host arrays on the host, so that one copy goes to each device."""
    on_host = isinstance(leaves[0], np.ndarray)
    return np.stack(leaves) if on_host else jnp.stack(leaves)
