"""Checkpoints of a run: the best, the last, and the one before the last."""

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

from segjax.files import orbax
from segjax.train import agree, arrays, seal
from segjax.train.saving import saving
from segjax.train.state import TrainState

_ARRAYS = "arrays"


class _Facts(TypedDict):
    step: int
    score: float | None
    progress: dict[str, Any]
    leaves: dict[str, str]


class Checkpoints:
    """The states kept in one folder. Use as a context manager, or call `close`.

    A checkpoint is a folder named by its step: arrays in Orbax's format, written by
    all processes, and `digests.json`, which has the size and SHA-256 of every file.
    It is written under another name and renamed when all of it is on the disk, so
    that whatever ends the process leaves the earlier ones as they were. Writing goes
    on beside training, one checkpoint at a time: the next save and every reading
    method wait for it, and raise SaveError if it failed.

    With several processes each calls the same methods in the same order.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        monitor: str,
        mode: Literal["max", "min"] = "max",
    ):
        """Reads which checkpoints there are.

        Args:
            folder: `RUN/checkpoints`; made at the first save.
            monitor: The metric by which `best` is picked.
            mode: Whether its greatest or its least value is the best.
        """
        self._monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._folder = folder
        self._scores: dict[int, float] = {}
        self._damaged: dict[int, str] = {}  # A line each.
        for step in _steps_in(self._folder):
            try:
                score = _facts(self._path(step))["score"]
            except seal.DamagedError:
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
                # Where one process failed the others do not come to the barrier.
                self._writing.result()
        finally:
            self._thread.shutdown()

    def close(self) -> None:
        """Waits for writing to end. Raises SaveError if it failed."""
        self.__exit__(None)

    def save(
        self,
        state: TrainState,
        figures: Mapping[str, float],
        *,
        progress: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> bool:
        """Keeps a state under its step; a step that is kept already is left alone.

        Returns when the state is copied: the caller may donate it.

        Args:
            state: The state, on the device.
            figures: Of the evaluation at this step; without the monitored one the
                state is never the best unless there is no other.
            progress: JSON values that belong to the step, for `progress`.
            replace: Write a step that is kept already again.

        Returns:
            Whether the state is the best one so far by the monitored metric.

        Raises:
            SaveError: If this or the save before it failed.
        """
        step = int(state.step)
        self._wait()
        if step in self._scores and not replace:
            return False
        score = figures.get(self._monitor, math.nan)
        score = score if math.isfinite(score) else None
        scores = self._scores | {step: self._rank(score)}
        kept = {step: scores[step] for step in _to_keep(scores)}
        facts = {
            "step": step,
            "score": score,
            "progress": copy.deepcopy(dict(progress or {})),
            "leaves": arrays.leaves(state),
        }
        part = seal.part_of(self._path(step))
        with self._saving(step):
            if jax.process_index() == 0:
                seal.sweep(self._folder)
            wait = arrays.begin_writing(part / _ARRAYS, state)
        self._writing = self._thread.submit(self._finish, wait, facts, kept)
        return score is not None and _best(scores) == step

    def _rank(self, score: float | None) -> float:
        """Higher is better; a state without a score is the best of none."""
        return -math.inf if score is None else self._sign * score

    def _finish(
        self, wait: Callable[[], None], facts: Mapping[str, Any], kept: dict[int, float]
    ) -> None:
        """Seals what Orbax wrote, gives it its name, and removes older ones."""
        step = facts["step"]
        with self._saving(step):
            wait()
            if jax.process_index() == 0:
                seal.publish(self._path(step), facts)
                for old in _steps_in(self._folder) - kept.keys():
                    seal.remove(self._path(old))
        self._scores = kept
        self._checked.add(step)

    @contextlib.contextmanager
    def _saving(self, step: int) -> Iterator[None]:
        """Leaves nothing behind where writing fails."""
        last = max(self._scores, default="none")
        with saving(self._path(step), after=f"The last whole one: {last}. "):
            with orbax.quiet():
                try:
                    yield
                except Exception:
                    for _ in range(4):  # Orbax's other threads hear of it later.
                        if jax.process_index() == 0:
                            seal.sweep(self._folder)
                            time.sleep(0.25)
                    raise

    def _wait(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        writing.result()
        agree.wait_for_all("a checkpoint")  # The first process gives it its name.

    @property
    def steps(self) -> list[int]:
        """Steps kept, ascending."""
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
        """Whether a callback ended the run at its last step."""
        last = self.last
        return last is not None and bool(self.progress(last).get("stop_reason"))

    def pick(self, which: Literal["best", "last"]) -> int | None:
        """The best or the last step; None if there is no checkpoint yet.

        Raises:
            ValueError: If a checkpoint whose record is damaged may be the one that is
                asked for.
        """
        self._wait()
        step = self.best if which == "best" else self.last
        doubtful = [
            problem
            for damaged, problem in sorted(self._damaged.items(), reverse=True)
            if which == "best" or step is None or damaged > step
        ]
        if not doubtful:
            return step
        cure = "Go on by segjax train ... --resume"
        if which == "best" and step is not None:
            cure = "Use the latest by --checkpoint last"
        raise ValueError(
            f"{doubtful[0]}; it may be the {which} checkpoint. {cure}, or train into "
            f"another --run."
        )

    def newest_whole(self) -> tuple[int | None, list[str]]:
        """Reads every checkpoint, and from here on leaves out what is damaged.

        Returns:
            The latest step whose files are all as they were written, None if there
            is none; and a line for each damaged checkpoint, the newest first, with
            the first bad file. Damaged ones are removed when the next save succeeds.
        """
        self._wait()
        problems = []
        if jax.process_index() == 0:
            for step in sorted(_steps_in(self._folder), reverse=True):
                if problem := _problem(self._path(step)):
                    problems.append(problem)
                    self._scores.pop(step, None)
                    self._damaged[step] = problem
        # JSON has no numbers as names.
        scores, problems = agree.of_the_first([[*self._scores.items()], problems])
        self._scores = dict(scores)
        self._checked |= self._scores.keys()
        return max(self._scores, default=None), problems

    def forget_after(self, step: int) -> None:
        """Leaves out what is later; it is removed when the next save succeeds."""
        self._wait()
        self._scores = {s: score for s, score in self._scores.items() if s <= step}

    def progress(self, step: int) -> dict[str, Any]:
        """The JSON values that were saved with one of `steps`."""
        self._wait()
        return _facts(self._path(step))["progress"]

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Loads a state.

        Args:
            step: One of `steps`.
            like: A state of the same experiment: its structure, shapes, dtypes and
                shardings are those of the result. Shapes alone will do. On how many
                devices and processes the state was when saved does not matter.

        Raises:
            ValueError: If the checkpoint is damaged, or holds another model or
                optimizer; the message names the file, or the first difference.
        """
        self._wait()
        if step not in self._checked:
            if problem := _problem(self._path(step)):
                raise ValueError(f"{problem}. Use another checkpoint or another --run.")
            self._checked.add(step)
        leaves = _facts(self._path(step))["leaves"]
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
    """The best, the last, and the one before it, in case the last is damaged."""
    return {_best(scores), *sorted(scores)[-2:]} - {None}


def _facts(path: pathlib.Path) -> dict[str, Any]:
    """What `save` wrote beside the arrays.

    Raises:
        seal.DamagedError: If it is damaged, or that of another step.
    """
    facts = seal.facts(path)
    try:
        msgspec.convert(facts, _Facts)
    except msgspec.ValidationError as error:
        raise seal.DamagedError(f"{seal.SEAL} is not ours ({error})") from None
    if facts["step"] != int(path.name):
        raise seal.DamagedError(
            f"it is the checkpoint of step {facts['step']} under another name"
        )
    return facts


def _problem(path: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint, in a line; None if it is whole."""
    if not (path / _ARRAYS).exists() and (path / "commit_success.txt").exists():
        return f"{path} was written by an earlier segjax, which this one cannot read"
    try:
        _facts(path)
        seal.check(path)
    except seal.DamagedError as error:
        return f"{path} is damaged: {error}"
    return None
