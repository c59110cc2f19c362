"""Several seeds in one program: packed states, and one step.

A group is a tree of the structure of a state or a batch whose leaves stack those of
several seeds along a new first axis. A program takes a tuple of groups. On one device
the unrolled form needs no such axis: a group is then the tree of a single seed.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from segjax.train import sharding
from segjax.train.step import Update
from segjax.typing import Array, Batch, PyTree

_AXIS = "seed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedStep:
    """A step of one or many seeds, with the packing of their states and batches.

    Attributes:
        update: `(groups of states, groups of batches) -> (groups of states, metrics of
            each seed)`, under `jax.jit`. The states are donated.
        mesh: The devices, over which the seeds of a group are split, or the batch of a
            single seed.
        rows: The number of seeds in a group; None if a group is one seed without a new
            axis.
        batch_is_split: Whether the mesh splits batches instead of seeds.
    """

    update: Callable
    mesh: Mesh
    rows: int | None
    batch_is_split: bool = False

    def pack(self, trees: Sequence[PyTree]) -> tuple[PyTree, ...]:
        """Packs the states of all seeds, in order, and copies them to the devices."""
        if self.batch_is_split:
            return tuple(sharding.replicate(tree, self.mesh) for tree in trees)
        if self.rows is None:
            groups, spec = tuple(trees), PartitionSpec()
        else:
            starts = range(0, len(trees), self.rows)
            parts = [trees[i : i + self.rows] for i in starts]
            groups = tuple(jax.tree.map(_stack, *part) for part in parts)
            spec = PartitionSpec(_AXIS)
        return jax.device_put(groups, NamedSharding(self.mesh, spec))

    def pack_batches(self, batches: Sequence[Batch]) -> tuple[PyTree, ...]:
        """Packs the batches of all seeds, and copies them to the devices."""
        if self.batch_is_split:
            return tuple(sharding.to_device(batch, self.mesh) for batch in batches)
        return self.pack(batches)

    def unpack(self, groups: tuple[PyTree, ...], place: int) -> PyTree:
        """Returns the tree of the seed at a place, as it was passed to `pack`."""
        if self.rows is None:
            return groups[place]
        group, row = divmod(place, self.rows)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return _row(groups[group], row, everywhere)


def single_seed(step: Update, *, mesh: Mesh) -> SeedStep:
    """Builds the step of a single seed; XLA splits its batch over the mesh.

    Args:
        step: `(state, batch) -> (state, metrics)`, built without `axis_name`.
        mesh: From `sharding.make_mesh`.
    """

    def train_step(states: tuple[PyTree, ...], batches: tuple[PyTree, ...]):
        (state,), (batch,) = states, batches
        state, metrics = step(state, batch)
        return (state,), (metrics,)

    everywhere = sharding.replicated(mesh)
    compiled = jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(everywhere, sharding.split_over(mesh)),
        out_shardings=everywhere,
    )
    return SeedStep(update=compiled, mesh=mesh, rows=None, batch_is_split=True)


def unrolled(step: Update, *, mesh: Mesh) -> SeedStep:
    """Builds one program with the steps of all seeds in sequence, split over devices.

    On one device the numbers are bit for bit those of single runs. The program has S
    copies of the step, and compilation takes S times as long.

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

        return SeedStep(update=jax.jit(many, donate_argnums=0), mesh=mesh, rows=None)

    def one(state: PyTree, batch: PyTree):
        first = jax.tree.map(lambda x: x[0], (state, batch))
        return jax.tree.map(lambda x: x[None], step(*first))

    return _split(one, mesh, rows=mesh.size)


def vmapped(step: Update, *, mesh: Mesh, seeds: int) -> SeedStep:
    """Builds a program with `jax.vmap` of the step, whose size does not depend on S.

    Args:
        step: `(state, batch) -> (state, metrics)`, built without `axis_name`.
        mesh: From `mesh_of_seeds`.
        seeds: S.
    """
    return _split(jax.vmap(step), mesh, rows=seeds)


def seed_step(step: Update, *, seeds: int) -> SeedStep:
    """Builds the step for a number of seeds: of one seed, the batch is split."""
    if seeds == 1:
        return single_seed(step, mesh=sharding.make_mesh())
    return fastest(step, mesh=mesh_of_seeds(seeds), seeds=seeds)


def fastest(step: Update, *, mesh: Mesh, seeds: int) -> SeedStep:
    """Builds the faster form for the device: unrolled on a CPU, else vmapped.

    XLA turns the vmapped form into grouped convolutions, which are slow on a CPU
    (docs/speed.md).
    """
    if jax.default_backend() == "cpu":
        return unrolled(step, mesh=mesh)
    return vmapped(step, mesh=mesh, seeds=seeds)


def mesh_of_seeds(seeds: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of as many devices as divide the seeds evenly; others stay idle.

    Args:
        seeds: S, at least 1.
        devices: All devices unless given.
    """
    devices = jax.devices() if devices is None else devices
    count = max(n for n in range(1, len(devices) + 1) if seeds % n == 0)
    return Mesh(np.asarray(devices[:count]), (_AXIS,), axis_types=(AxisType.Auto,))


def _split(step_of_group: Callable, mesh: Mesh, *, rows: int) -> SeedStep:
    """Builds a step over groups of `rows` seeds, each split over the mesh."""
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
        # Sliced inside of the program, which is cheaper than one call for each slice.
        apart = [
            jax.tree.map(lambda x, row=row: x[row], group)
            for group in metrics
            for row in range(rows)
        ]
        return states, apart

    shardings = NamedSharding(mesh, spec), NamedSharding(mesh, PartitionSpec())
    step = jax.jit(many, donate_argnums=0, out_shardings=shardings)
    return SeedStep(update=step, mesh=mesh, rows=rows)


@functools.partial(jax.jit, static_argnums=2)
def _row(group: PyTree, row: int | Array, sharding: NamedSharding) -> PyTree:
    """Slices a row; the index is traced, so that all rows share one program."""
    return jax.lax.with_sharding_constraint(
        jax.tree.map(lambda x: x[row], group), sharding
    )


def _stack(*leaves: Array) -> Array:
    """Stacks to [S, ...]; host arrays on the host, to copy once to each device."""
    on_host = isinstance(leaves[0], np.ndarray)
    return np.stack(leaves) if on_host else jnp.stack(leaves)
