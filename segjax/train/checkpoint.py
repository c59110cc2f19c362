"""Checkpoints of a run: the best, the last, and the second to last."""

import concurrent.futures
import contextlib
import copy
import math
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypedDict

import jax
import msgspec

from segjax import multihost
from segjax.errors import UserError
from segjax.files import orbax
from segjax.run_folder import arrays, integrity
from segjax.run_folder.errors import saving
from segjax.train.state import TrainState

_ARRAYS = "arrays"


class _Metadata(TypedDict):
    step: int
    score: float | None
    progress: dict[str, Any]
    leaves: dict[str, str]


class Checkpoints:
    """The checkpoints in one folder. Use as a context manager, or call `close`.

    A checkpoint is a folder named by its step: arrays in Orbax's format, written by
    all processes, and `checksums.json` with the size and SHA-256 of every file. It is
    written under a temporary name and renamed when all of it is on the disk, so that
    earlier checkpoints survive whatever ends the process. Checkpoints are written in
    the background, one at a time: the next save and every method that reads wait for
    it, and raise SaveError if it failed.

    With several processes, each calls the same methods in the same order.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        monitor: str,
        mode: Literal["max", "min"] = "max",
    ):
        """Reads the metadata of all checkpoints.

        Args:
            folder: `RUN/checkpoints`; created by the first save.
            monitor: The metric that decides which checkpoint is the best.
            mode: Whether the highest or the lowest value is the best.
        """
        self._monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._folder = folder
        self._scores: dict[int, float] = {}
        self._damaged: dict[int, str] = {}  # What is wrong, in one line.
        for step in _steps_in(self._folder):
            try:
                score = _metadata(self._path(step))["score"]
            except integrity.DamagedError:
                self._damaged[step] = _problem(self._path(step)) or ""
                continue
            self._scores[step] = self._rank(score)
        self._checked: set[int] = set()
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None:
                self._wait()
            elif self._writing is not None:
                # After an error the other processes do not reach the barrier.
                self._writing.result()
        finally:
            self._thread.shutdown()

    def close(self) -> None:
        """Waits for the current save. Raises SaveError if it failed."""
        self.__exit__(None)

    def save(
        self,
        state: TrainState,
        metrics: Mapping[str, float],
        *,
        progress: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> bool:
        """Saves a state under its step, unless that step is saved already.

        Returns after the state was copied, so that the caller may donate it.

        Args:
            state: The state, on the device.
            metrics: The evaluation at this step. Without the monitored metric the
                state is the best only if there is no other.
            progress: JSON values to store with the step; see `progress`.
            replace: Overwrite a step that is saved already.

        Returns:
            Whether the state is the best so far by the monitored metric.

        Raises:
            SaveError: If this or the previous save failed.
        """
        step = int(state.step)
        self._wait()
        if step in self._scores and not replace:
            return False
        score = metrics.get(self._monitor, math.nan)
        score = score if math.isfinite(score) else None
        scores = self._scores | {step: self._rank(score)}
        kept = {step: scores[step] for step in _to_keep(scores)}
        metadata = {
            "step": step,
            "score": score,
            "progress": copy.deepcopy(dict(progress or {})),
            "leaves": arrays.leaves(state),
        }
        part = integrity.part_path(self._path(step))
        with self._saving(step):
            if jax.process_index() == 0:
                integrity.remove_unfinished(self._folder)
            wait = arrays.start_writing(part / _ARRAYS, state)
        self._writing = self._thread.submit(self._finish, wait, metadata, kept)
        return score is not None and _best(scores) == step

    def _rank(self, score: float | None) -> float:
        """Maps a score so that higher is better; no score is lowest."""
        return -math.inf if score is None else self._sign * score

    def _finish(
        self,
        wait: Callable[[], None],
        metadata: Mapping[str, Any],
        kept: dict[int, float],
    ) -> None:
        """Commits what Orbax wrote, then removes older checkpoints."""
        step = metadata["step"]
        with self._saving(step):
            wait()
            if jax.process_index() == 0:
                integrity.commit(self._path(step), metadata)
                for old in _steps_in(self._folder) - kept.keys():
                    integrity.remove(self._path(old))
        self._scores = kept
        self._checked.add(step)

    @contextlib.contextmanager
    def _saving(self, step: int) -> Iterator[None]:
        """Removes unfinished files if the save fails."""
        last = max(self._scores, default="none")
        with saving(self._path(step), note=f"The last intact one: {last}. "):
            with orbax.quiet():
                try:
                    yield
                except Exception:
                    for _ in range(
                        4
                    ):  # Orbax's other threads still write for a moment.
                        if jax.process_index() == 0:
                            integrity.remove_unfinished(self._folder)
                            time.sleep(0.25)
                    raise

    def _wait(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        writing.result()
        multihost.barrier("a checkpoint")  # The first process renames it.

    @property
    def steps(self) -> list[int]:
        """The saved steps, ascending."""
        self._wait()
        return sorted(self._scores)

    @property
    def best(self) -> int | None:
        """The step with the best monitored metric; the later one of equals."""
        self._wait()
        return _best(self._scores)

    @property
    def last(self) -> int | None:
        """The latest step."""
        self._wait()
        return max(self._scores, default=None)

    @property
    def ended(self) -> bool:
        """Whether a callback stopped the run at its last step."""
        last = self.last
        return last is not None and bool(self.progress(last).get("stop_reason"))

    def pick(self, which: Literal["best", "last"]) -> int | None:
        """Returns the best or the last step; None if there is no checkpoint.

        Raises:
            ValueError: If a checkpoint with damaged metadata may be the requested one.
        """
        self._wait()
        step = self.best if which == "best" else self.last
        candidates = [
            problem
            for damaged, problem in sorted(self._damaged.items(), reverse=True)
            if which == "best" or step is None or damaged > step
        ]
        if not candidates:
            return step
        cure = "Continue by segjax train ... --resume"
        if which == "best" and step is not None:
            cure = "Use the latest by --checkpoint last"
        raise UserError(
            f"{candidates[0]}; it may be the {which} checkpoint. {cure}, or train into "
            f"another --run."
        )

    def newest_intact(self) -> tuple[int | None, list[str]]:
        """Verifies every checkpoint; damaged ones are ignored from now on.

        Returns:
            The latest step whose files are all intact, or None; and a line for each
            damaged checkpoint, the newest first, with the first bad file. They are
            removed when the next save succeeds.
        """
        self._wait()
        problems = []
        if jax.process_index() == 0:
            for step in sorted(_steps_in(self._folder), reverse=True):
                if problem := _problem(self._path(step)):
                    problems.append(problem)
                    self._scores.pop(step, None)
                    self._damaged[step] = problem
        # As pairs: JSON has no numbers as keys.
        scores, problems = multihost.broadcast_from_first(
            [[*self._scores.items()], problems]
        )
        self._scores = dict(scores)
        self._checked |= self._scores.keys()
        return max(self._scores, default=None), problems

    def drop_after(self, step: int) -> None:
        """Ignores later steps, which are removed when the next save succeeds."""
        self._wait()
        self._scores = {s: score for s, score in self._scores.items() if s <= step}

    def progress(self, step: int) -> dict[str, Any]:
        """Returns the JSON values that were saved with one of `steps`."""
        self._wait()
        return _metadata(self._path(step))["progress"]

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Loads a state.

        Args:
            step: One of `steps`.
            like: A state, or its abstract form, with the structure, shapes, dtypes and
                shardings of the result. The number of devices and processes may differ
                from that of the save.

        Raises:
            ValueError: If the checkpoint is damaged, or of another model or optimizer;
                the message names the file or the first difference.
        """
        self._wait()
        if step not in self._checked:
            if problem := _problem(self._path(step)):
                raise UserError(f"{problem}. Use another checkpoint or another --run.")
            self._checked.add(step)
        leaves = _metadata(self._path(step))["leaves"]
        arrays.check_same(leaves, like, path=self._path(step))
        return arrays.read(self._path(step) / _ARRAYS, like)

    def _path(self, step: int) -> pathlib.Path:
        return self._folder / str(step)


def _steps_in(folder: pathlib.Path) -> set[int]:
    if not folder.is_dir():
        return set()
    names = (p.name for p in folder.iterdir())
    return {int(name) for name in names if re.fullmatch(r"0|[1-9]\d{0,17}", name)}


def _best(scores: Mapping[int, float]) -> int | None:
    return max(scores, key=lambda step: (scores[step], step), default=None)


def _to_keep(scores: Mapping[int, float]) -> set[int]:
    """The best, the last, and the second to last in case the last is damaged."""
    return {_best(scores), *sorted(scores)[-2:]} - {None}


def _metadata(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `save` stored beside the arrays.

    Raises:
        DamagedError: If it is damaged, or of another step.
    """
    metadata = integrity.read_metadata(path)
    try:
        msgspec.convert(metadata, _Metadata)
    except msgspec.ValidationError as error:
        raise integrity.DamagedError(
            f"{integrity.CHECKSUMS} was not written by segjax ({error})"
        ) from None
    if metadata["step"] != int(path.name):
        raise integrity.DamagedError(
            f"it is the checkpoint of step {metadata['step']} under another name"
        )
    return metadata


def _problem(path: pathlib.Path) -> str | None:
    """Returns what is wrong with a checkpoint, in one line; None if it is intact."""
    try:
        _metadata(path)
        integrity.verify(path)
    except integrity.DamagedError as error:
        return f"{path} is damaged: {error}"
    return None
