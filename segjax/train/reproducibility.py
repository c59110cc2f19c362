"""Digests of the first updates of a run, by which `segjax verify` compares runs."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax import multihost, ops
from segjax.run_folder import schema
from segjax.run_folder.manifest import without_nan, write_json
from segjax.train.state import TrainState
from segjax.train.step_parts import fields_of, make_prepare, step_keys
from segjax.typing import Array, Batch

STEPS = 5
"""The number of updates whose digests are in `run.json`."""

STREAMS = ("initialization", "data", "augmentation", "arithmetic")
"""In the order of computation: each feeds the next."""


class StepDigests:
    """Computes digests of a step's input and result, outside of the step's program."""

    def __init__(self, experiment: Any):
        """Builds the programs, which are compiled when first called.

        Args:
            experiment: Its preprocessing and augmentation are applied a second time.
        """
        prepare = make_prepare(
            experiment.forward, experiment.augment, fields=fields_of(experiment)
        )

        @jax.jit
        def batch_digest(state: TrainState, batch: Batch) -> Array:
            augment_key, _ = step_keys(state)
            rows = jax.vmap(ops.digest)(dict(prepare(augment_key)(batch)))
            return jnp.sum(rows, dtype=jnp.uint32)

        self._of_batch = batch_digest
        self._of_tree = jax.jit(ops.digest)

    def before(self, state: TrainState, batch: Batch) -> dict[str, Array]:
        """Digests a batch after preprocessing and augmentation, `index` included.

        The sum over examples does not depend on how the batch is split over devices.
        """
        bare = dataclasses.replace(
            state, params=None, model_state=None, opt_state=None, extra=None
        )
        return {"digest/batch": self._of_batch(bare, batch)}

    def after(
        self, state: TrainState, metrics: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Digests the state after an update, and the norm of its gradient."""
        rest = (state.model_state, state.opt_state, state.extra)
        return {
            "digest/gradients": self._of_tree(metrics.get("grad_norm", ())),
            "digest/params": self._of_tree(state.params),
            "digest/state": self._of_tree(rest),
        }


class DigestRecorder:
    """Records the digests of the first updates of a run.

    Those of augmentation and arithmetic come from `StepDigests`, through the metrics
    that the log fetches anyway, so nothing waits for the device.
    """

    def __init__(self, run: pathlib.Path | None = None, *, steps: int = 0):
        """Creates an empty recorder.

        Args:
            run: The run folder whose `run.json` gets the digests; None writes none.
            steps: The number of updates to record; 0 records nothing.
        """
        self._run, self._steps = run, steps
        self._once: dict[str, str] = {}  # program, initialization
        self._batches: list[str] = []
        self._rows: list[Mapping[str, Any]] = []

    @property
    def found(self) -> dict[str, Any]:
        """The digests so far, as JSON values for `run.json`.

        `program` is the step's program before compilation, `initialization` the first
        state; the others have one entry per step: `data` the stored batch (of the first
        process, if there are several), `augmentation` the batch that the model sees,
        and `arithmetic` the loss, the norm of the gradient, and parameters and all
        other state after the update.
        """
        found = {
            "steps": len(self._rows),
            **self._once,
            "data": self._batches[: len(self._rows)],
            "augmentation": [_hex(row["digest/batch"]) for row in self._rows],
            "arithmetic": [_arithmetic(row) for row in self._rows],
        }
        return without_nan(found)

    def wants(self, number: int) -> bool:
        """Returns whether update `number` is recorded."""
        return number <= self._steps

    def batches(self, host: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Yields the same batches, and digests the first ones."""
        for batch in host:
            if len(self._batches) < self._steps:
                self._batches.append(batch_digest(batch))
            yield batch

    def state(self, state: TrainState) -> None:
        """Digests the state before the first update."""
        if self._steps:
            self._once["initialization"] = state_digest(state)

    def program(self, lowered: jax.stages.Lowered) -> None:
        """Digests the program of the step."""
        if self._steps:
            self._once["program"] = program_digest(lowered)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes host metrics of the next updates, and writes new digests."""
        new = rows[: self._steps - len(self._rows)]
        self._rows += new
        if new and self._run is not None:
            path = self._run / "run.json"
            manifest = schema.read(path, schema.Manifest)
            write_json(path, manifest | {"digests": self.found})


def digest_recorder(run: pathlib.Path, *, first: int) -> DigestRecorder:
    """Returns the recorder of a run; it records nothing if the run has digests.

    Args:
        run: The run folder. All processes compute, the first one writes.
        first: The number of updates done before; nothing is recorded if there are any.
    """
    if first:
        return DigestRecorder()
    here, path = jax.process_index() == 0, run / "run.json"
    has_them = False
    if here and path.exists():
        has_them = "digests" in schema.read(path, schema.Manifest)
    steps = 0 if multihost.broadcast_from_first(has_them) else STEPS
    return DigestRecorder(run if here else None, steps=steps)


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first difference of a stream.

    Attributes:
        stream: One of `STREAMS`.
        step: The number of the update, from 1; None before the first update.
        what: The name of the digest, such as loss.
    """

    stream: str
    step: int | None
    what: str


def differences(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any]
) -> list[Difference]:
    """Returns the first difference of each stream that differs, in `STREAMS` order.

    Args:
        recorded: `digests` of `run.json`.
        replayed: Those of a replay, of at most as many steps.
    """
    found = []
    if recorded["initialization"] != replayed["initialization"]:
        found.append(Difference("initialization", None, "state"))
    for stream in STREAMS[1:]:
        there, here = (_named(digests[stream]) for digests in (recorded, replayed))
        pairs = zip(there, here, strict=False)  # The replay may have fewer steps.
        for step, (one, other) in enumerate(pairs, 1):
            names = [name for name in one if one[name] != other.get(name)]
            if names:
                found.append(Difference(stream, step, names[0]))
                break
    return found


def batch_digest(batch: Batch) -> str:
    """Returns 16 digits of the SHA-256 of a host batch, with names, dtypes, shapes."""
    return _sha256(sorted(batch.items()))


def state_digest(state: TrainState) -> str:
    """Returns 16 digits of the SHA-256 of parameters, collections, key and `extra`.

    The optimizer's state is not included: it does not depend on random numbers, and a
    different optimizer shows in the arithmetic.
    """
    # Of this process's copy: unpacking a global key would be a collective program.
    key = jax.random.key_data(state.key.addressable_data(0))
    drawn = (state.params, state.model_state, key)
    drawn = drawn if state.extra is None else (*drawn, state.extra)
    leaves = jax.tree_util.tree_flatten_with_path(drawn)[0]
    return _sha256((jax.tree_util.keystr(path), x) for path, x in leaves)


def program_digest(lowered: jax.stages.Lowered) -> str:
    """Returns 16 digits of the SHA-256 of a program's StableHLO, without file names.

    It is the same in every process and folder, and changes with the code of model,
    loss, augmentation and optimizer, with shapes, and with JAX's version.
    """
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()[:16]


def _sha256(arrays: Iterable[tuple[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name, value in arrays:
        x = np.ascontiguousarray(value)
        digest.update(f"{name} {x.dtype.str} {np.shape(value)} ".encode())
        digest.update(x.tobytes())
    return digest.hexdigest()[:16]


def _arithmetic(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "loss": float(row["loss"]),
        "gradients": _hex(row["digest/gradients"]),
        "parameters": _hex(row["digest/params"]),
    }
    if "digest/state" in row:
        found["state"] = _hex(row["digest/state"])
    return found


def _named(digests: Sequence[Any]) -> list[dict[str, Any]]:
    return [d if isinstance(d, dict) else {"batch": d} for d in digests]


def _hex(value: Any) -> str:
    return f"{int(value):08x}"
