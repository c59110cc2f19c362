"""What a run says: `metrics.jsonl`, TensorBoard, and the terminal."""

import contextlib
import json
import math
import pathlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from segjax import run_files
from segjax.train.board import TensorBoardWriter
from segjax.train.config import TrainConfig
from segjax.train.manifest import without_nan
from segjax.train.saving import saving


class RunLog:
    """Appends records to the run folder and tells the terminal.

    A terminal shows a live bar with images/s and time left, and a line an
    evaluation. Elsewhere (a file, a batch system) the lines are printed, and every
    half minute one that says what goes on.

    Attributes:
        evaluations: The records of all evaluations of the run so far, but the final.
    """

    def __init__(
        self,
        run: pathlib.Path,
        *,
        config: TrainConfig,
        first_step: int,
        console: Console | None = None,
        name: str = "",
        heartbeat: float = 30.0,
    ):
        """Shows what goes on; `begin` opens the files.

        Args:
            run: The run folder, which exists.
            config: Steps in total, and images per update for images/s.
            first_step: Updates done before. Records of later steps are taken out,
                and so is the final evaluation: the file goes on as if training had
                never stopped.
            console: Where to print; standard output unless given.
            name: Begins each line, where several runs share a console.
            heartbeat: Seconds between lines about what goes on, where there is no
                terminal; 0 for none.
        """
        self._name = name
        self._console = Console(highlight=False) if console is None else console
        self._path = run / "metrics.jsonl"
        self.evaluations: list[dict[str, Any]] = []
        self._files = contextlib.ExitStack()
        self._first_step = first_step
        self._batch_size, self._steps = config.batch_size, config.steps
        self._clock = time.perf_counter()
        self._clock_step = first_step
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[info]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            "Training", total=config.steps, completed=first_step, info="compiling"
        )
        self._bar.start()
        every = 0.0 if self._console.is_terminal else heartbeat
        self._heartbeat = Heartbeat(self.say, every=every)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self._heartbeat.stop()
        self._bar.stop()
        self._files.close()

    def begin(self) -> None:
        """Takes later records out and opens the files, once all else was checked."""
        with saving(self._path):
            cut_back(self._path, self._first_step)
            self.evaluations[:] = _evaluations(self._path)
            # Each line at once.
            self._lines = self._path.open("a", buffering=1, encoding="utf-8")
        self._files.callback(self._close_lines)
        self._board = self._files.enter_context(
            TensorBoardWriter(self._path.parent / "tensorboard")
        )
        self._board.forget_after(self._first_step)

    def _close_lines(self) -> None:
        with saving(self._path):
            self._lines.close()

    def doing(self, text: str) -> None:
        """What goes on from now: shown beside the bar, or told by the heartbeat."""
        self._bar.update(self._task, info=text)
        self._heartbeat.text = text

    def start_clock(self, step: int) -> None:
        """Measures images/s from here on, so that pauses do not count as training."""
        self._clock, self._clock_step = time.perf_counter(), step

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records the means of the last updates."""
        now = time.perf_counter()
        images = (step - self._clock_step) * self._batch_size
        rate = images / max(now - self._clock, 1e-9)
        self.start_clock(step)
        self._record("train", step, {**scalars, "images_per_second": rate})
        info = f"loss {scalars['loss']:.3f}  {rate:.0f} images/s"
        if "learning_rate" in scalars:
            info += f"  lr {scalars['learning_rate']:.2e}"
        self._bar.update(self._task, completed=step, info=info)
        left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
        self._heartbeat.text = (
            f"step {step}/{self._steps}  {info}  {_duration(left)} left"
        )

    def tick(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def eval(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        split: str,
        epoch: float,
        final: bool = False,
    ) -> None:
        """Records an evaluation; `final` marks that of the finished run."""
        record = {"split": split, "epoch": round(epoch, 3), **metrics}
        record |= {"final": True} if final else {}
        self._record("eval", step, record)
        if not final:
            self.evaluations.append({"step": step, **record})

    def say(self, text: str) -> None:
        """Prints one line above the bar."""
        line = f"{self._name}  {text}" if self._name else text
        self._console.print(line, markup=False, soft_wrap=True)

    def _record(self, kind: str, step: int, metrics: Mapping) -> None:
        self._write({"kind": kind, "step": step, **metrics})
        for name, value in metrics.items():
            if isinstance(value, float) and math.isfinite(value):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def _write(self, record: Mapping) -> None:
        line = json.dumps(without_nan(record), allow_nan=False)
        with saving(self._path):
            self._lines.write(f"{line}\n")


class Heartbeat:
    """A thread that says every so often what goes on.

    Attributes:
        text: What it says.
    """

    def __init__(self, say: Callable[[str], None], *, every: float):
        """Starts it, unless `every` is 0.

        Args:
            say: Prints a line.
            every: Seconds.
        """
        self.text, self._say, self._every = "starting", say, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if every:
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._every):
            self._say(f"... {self.text}")


class NullWriter(RunLog):
    """The log of every process but the first: nothing."""

    def __init__(self):
        self.evaluations = []

    def begin(self) -> None:
        """Opens nothing."""

    def doing(self, text: str) -> None:
        """Shows nothing."""

    def __exit__(self, *_) -> None:
        pass

    def start_clock(self, step: int) -> None:
        """Does nothing."""

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes nothing."""

    def tick(self, step: int) -> None:
        """Moves nothing."""

    def eval(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        split: str,
        epoch: float,
        final: bool = False,
    ) -> None:
        """Writes nothing."""

    def say(self, text: str) -> None:
        """Says nothing."""


def _evaluations(path: pathlib.Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name != "kind"}
        for record in run_files.read_log(path)
        if record["kind"] == "eval" and not record.get("final")
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def cut_back(path: pathlib.Path, step: int) -> None:
    """Takes records of steps after `step`, the final one and a torn line out of a log.

    Args:
        path: `metrics.jsonl`, which `run_files.read_log` can read; replaced as a
            whole, or left alone where nothing is to be taken out.
        step: The last step that counts.
    """
    raw = path.read_bytes() if path.exists() else b""
    # The last line may have been torn in the middle of a character.
    text = raw[: raw.rfind(b"\n") + 1].decode()
    lines = text.split("\n")[:-1]
    kept = "".join(f"{line}\n" for line in lines if _counts(line, step)).encode()
    if kept == raw:
        return
    part = path.with_name(path.name + ".part")
    part.write_bytes(kept)
    part.replace(path)


def _counts(line: str, step: int) -> bool:
    record = json.loads(line)
    return record["step"] <= step and not record.get("final")


def metrics_line(metrics: Mapping[str, float], *, monitor: str) -> str:
    """`accuracy 78%  mean IoU 0.41`: what a person wants to see of an evaluation.

    Args:
        metrics: Of an evaluation.
        monitor: The metric that picks the best checkpoint; always shown.
    """
    parts = []
    if "pixel_accuracy" in metrics:
        parts.append(f"accuracy {metrics['pixel_accuracy']:.0%}")
    names = [n for n in ("mean_iou", monitor) if n in metrics]
    parts += [f"{_words(n)} {metrics[n]:.3f}" for n in dict.fromkeys(names)]
    return "  ".join(parts)


def _words(name: str) -> str:
    words = name.replace("_", " ").replace("iou", "IoU").replace("/", " ")
    return re.sub(r"\bap(?=\d*\b)", "AP", words)
