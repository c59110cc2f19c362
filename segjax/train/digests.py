"""Digests of how a run began, each stream apart, so that what differs has a name."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax import ops, run_files
from segjax.train import agree
from segjax.train.manifest import without_nan, write_json
from segjax.train.state import TrainState
from segjax.train.update import fields_of, make_prepare, step_keys
from segjax.typing import Array, Batch

STEPS = 5
"""Updates whose digests `run.json` keeps."""

STREAMS = ("initialization", "data", "augmentation", "arithmetic")
"""In the order in which one feeds the next."""


class Beside:
    """Digests of what a step works on, by programs of their own.

    They run beside the step in the first updates; nothing of them is in its program.
    """

    def __init__(self, experiment: Any):
        """Compiles nothing yet.

        Args:
            experiment: Whose preprocessing and augmentation are applied once more.
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
        """Digests a batch as the step prepares it, `index` included.

        The sum over its examples does not depend on how the batch is split.
        """
        bare = dataclasses.replace(
            state, params=None, model_state=None, opt_state=None, extra=None
        )
        return {"digest/batch": self._of_batch(bare, batch)}

    def after(
        self, state: TrainState, metrics: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Digests the state that an update made, and the norm of its gradient."""
        rest = (state.model_state, state.opt_state, state.extra)
        return {
            "digest/gradients": self._of_tree(metrics.get("grad_norm", ())),
            "digest/params": self._of_tree(state.params),
            "digest/state": self._of_tree(rest),
        }


class DigestRecorder:
    """Gathers the digests of the first updates while they are made.

    `Beside` computes those of augmentation and arithmetic; the loop passes the rest
    by. Nothing waits for the device: what the log fetches is looked at.
    """

    def __init__(self, run: pathlib.Path | None = None, *, steps: int = 0):
        """A collection for one run.

        Args:
            run: The run folder whose `run.json` gets the digests; None writes none.
            steps: Updates to look at; 0 looks at nothing.
        """
        self._run, self._steps = run, steps
        self._once: dict[str, str] = {}  # program, initialization
        self._batches: list[str] = []
        self._rows: list[Mapping[str, Any]] = []

    @property
    def found(self) -> dict[str, Any]:
        """The digests so far, as `run.json` has them: plain JSON values.

        `program` is the step as it is given to XLA, `initialization` the first state;
        the others have an entry a step: `data` is the batch as it was read (by the
        first process, where there are several), `augmentation` the batch as the model
        saw it, and `arithmetic` has the loss, the norm of the gradients, and parameters
        and all other state after the update.
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
        """Whether the update `number` is one of those to look at."""
        return number <= self._steps

    def batches(self, host: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Passes batches through, and digests the first of them."""
        for batch in host:
            if len(self._batches) < self._steps:
                self._batches.append(batch_digest(batch))
            yield batch

    def state(self, state: TrainState) -> None:
        """Digests the state before the first update."""
        if self._steps:
            self._once["initialization"] = state_digest(state)

    def program(self, lowered: jax.stages.Lowered) -> None:
        """Digests the step."""
        if self._steps:
            self._once["program"] = program_digest(lowered)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes the scalars of the next updates, on the host; writes what is new."""
        new = rows[: self._steps - len(self._rows)]
        self._rows += new
        if new and self._run is not None:
            path = self._run / "run.json"
            manifest = run_files.read(path, run_files.Manifest)
            write_json(path, manifest | {"digests": self.found})


def first_steps(run: pathlib.Path, *, first: int) -> DigestRecorder:
    """What gathers the digests of a run; nothing where it has them or is under way.

    Args:
        run: The run folder. All processes compute, and the first one writes.
        first: Updates done before.
    """
    if first:
        return DigestRecorder()
    here, path = jax.process_index() == 0, run / "run.json"
    has_them = False
    if here and path.exists():
        has_them = "digests" in run_files.read(path, run_files.Manifest)
    steps = 0 if agree.of_the_first(has_them) else STEPS
    return DigestRecorder(run if here else None, steps=steps)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where a stream first differs.

    Attributes:
        stream: One of `STREAMS`.
        step: The update, from 1; None for what is before the first.
        what: Which of its digests, such as loss.
    """

    stream: str
    step: int | None
    what: str


def differences(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any]
) -> list[Difference]:
    """The first difference of each stream that differs, in the order of `STREAMS`.

    Args:
        recorded: `digests` of a run's `run.json`.
        replayed: The same of a replay; its steps are compared.
    """
    found = []
    if recorded["initialization"] != replayed["initialization"]:
        found.append(Difference("initialization", None, "state"))
    for stream in STREAMS[1:]:
        there, here = (_named(digests[stream]) for digests in (recorded, replayed))
        pairs = zip(there, here, strict=False)  # Of a replay of fewer steps.
        for step, (one, other) in enumerate(pairs, 1):
            names = [name for name in one if one[name] != other.get(name)]
            if names:
                found.append(Difference(stream, step, names[0]))
                break
    return found


def batch_digest(batch: Batch) -> str:
    """SHA-256 of a host batch: names, dtypes, shapes and bytes; 16 digits."""
    return _sha256(sorted(batch.items()))


def state_digest(state: TrainState) -> str:
    """SHA-256 of parameters, collections and key; 16 digits.

    The optimizer's state is left out: it does not depend on random numbers, and
    another optimizer is a difference of the arithmetic.
    """
    # The key of this process alone: unpacking one of all is a program for all.
    key = jax.random.key_data(state.key.addressable_data(0))
    drawn = (state.params, state.model_state, key)
    drawn = drawn if state.extra is None else (*drawn, state.extra)
    leaves = jax.tree_util.tree_flatten_with_path(drawn)[0]
    return _sha256((jax.tree_util.keystr(path), x) for path, x in leaves)


def program_digest(lowered: jax.stages.Lowered) -> str:
    """SHA-256 of the StableHLO text, which has no places in files; 16 digits.

    It is the same in every process and at every path, and changes with the code of
    model, loss, augmentation and optimizer, with shapes, and with JAX's version.
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
