"""Writes metrics to `metrics.jsonl`, TensorBoard and the terminal."""

import contextlib
import io
import json
import math
import pathlib
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
from typing_extensions import override

from segjax import terminal
from segjax.files import writing
from segjax.run_folder import schema
from segjax.run_folder.errors import saving
from segjax.run_folder.manifest import without_nan
from segjax.train.experiment import TrainConfig
from segjax.train.tensorboard import TensorBoardWriter


class MetricWriter:
    """Writes metrics to the run folder, and progress to the console.

    A terminal shows a live progress bar with images/s and time left, and one line per
    evaluation. Elsewhere, as in a file or a batch system, the lines are printed with a
    status line every half minute.

    Attributes:
        evaluations: The records of all evaluations so far, without the final one.
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
        """Shows the progress bar; `open` opens the files.

        Args:
            run: The run folder, which exists.
            config: Has the total number of steps, and the batch size for images/s.
            first_step: The number of updates done before. `open` removes records of
                later steps and the final evaluation from the log, which then continues
                as if training had never stopped.
            console: Where to print; standard output unless given.
            name: A prefix for each line, if several runs share a console.
            heartbeat: Seconds between status lines if the console is no terminal; 0
                for none.
        """
        self._name = name
        self._console = terminal.console() if console is None else console
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
        self._heartbeat = Heartbeat(self.print_line, every=every)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        self._heartbeat.stop()
        self._bar.stop()
        self._files.close()

    def open(self) -> None:
        """Removes records of later steps and opens the files."""
        with saving(self._path):
            truncate_log(self._path, self._first_step)
            self.evaluations[:] = _evaluations(self._path)
            # Each line at once.
            self._lines = self._path.open("a", buffering=1, encoding="utf-8")
        self._files.callback(self._close_lines)
        self._tensorboard = self._files.enter_context(
            TensorBoardWriter(self._path.parent / "tensorboard")
        )
        self._tensorboard.drop_after(self._first_step)

    def _close_lines(self) -> None:
        with saving(self._path):
            self._lines.close()

    def status(self, text: str) -> None:
        """Sets the text beside the progress bar and of the status lines."""
        self._bar.update(self._task, info=text)
        self._heartbeat.text = text

    def start_clock(self, step: int) -> None:
        """Restarts the measurement of images/s, so that it leaves out pauses."""
        self._clock, self._clock_step = time.perf_counter(), step

    def write_train(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the means of the last updates."""
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

    def set_progress(self, step: int) -> None:
        """Moves the progress bar."""
        self._bar.update(self._task, completed=step)

    def write_eval(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        split: str,
        epoch: float,
        final: bool = False,
    ) -> None:
        """Writes an evaluation; `final` marks the one of the finished run."""
        record = {"split": split, "epoch": round(epoch, 3), **metrics}
        record |= {"final": True} if final else {}
        self._record("eval", step, record)
        if not final:
            self.evaluations.append({"step": step, **record})

    def print_line(self, text: str) -> None:
        """Prints one line above the progress bar."""
        line = f"{self._name}  {text}" if self._name else text
        self._console.print(line, markup=False, soft_wrap=True)

    def _record(self, kind: str, step: int, metrics: Mapping) -> None:
        self._write({"kind": kind, "step": step, **metrics})
        for name, value in metrics.items():
            if isinstance(value, float) and math.isfinite(value):
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def _write(self, record: Mapping) -> None:
        line = json.dumps(without_nan(record), allow_nan=False)
        with saving(self._path):
            self._lines.write(f"{line}\n")


class Heartbeat:
    """A thread that prints a status line at regular intervals.

    Attributes:
        text: The status.
    """

    def __init__(self, print_line: Callable[[str], None], *, every: float):
        """Starts the thread, unless `every` is 0.

        Args:
            print_line: Prints a line.
            every: Seconds between lines.
        """
        self.text, self._print_line, self._every = "starting", print_line, every
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
            self._print_line(f"... {self.text}")


class NullWriter(MetricWriter):
    """Writes nothing; for all processes but the first, and for `replay`."""

    def __init__(self):
        self.evaluations = []

    def __exit__(self, *_) -> None:
        pass

    @override
    def open(self) -> None: ...

    @override
    def status(self, text: str) -> None: ...

    @override
    def start_clock(self, step: int) -> None: ...

    @override
    def set_progress(self, step: int) -> None: ...

    @override
    def write_train(self, step, scalars) -> None: ...

    @override
    def write_eval(self, step, metrics, *, split, epoch, final=False) -> None: ...

    @override
    def print_line(self, text: str) -> None: ...


def line_console(console: Console) -> Console:
    """Returns a console whose lines appear above the progress bar of another one."""
    if not console.is_terminal:
        return console
    return terminal.console(file=_Lines(console))


class _Lines(io.StringIO):
    """A file whose lines a console prints."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def write(self, text: str) -> int:
        """Prints one line."""
        self._console.print(text.removesuffix("\n"), markup=False, soft_wrap=True)
        return len(text)


def _evaluations(path: pathlib.Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name != "kind"}
        for record in schema.read_log(path)
        if record["kind"] == "eval" and not record.get("final")
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def truncate_log(path: pathlib.Path, step: int) -> None:
    """Removes records after a step, the final one and a cut line from a log.

    Args:
        path: `metrics.jsonl`, which `schema.read_log` can read; replaced atomically,
            or not touched if nothing is to be removed.
        step: The last step to keep.
    """
    raw = path.read_bytes() if path.exists() else b""
    # The last line may have been cut in the middle of a character.
    text = raw[: raw.rfind(b"\n") + 1].decode()
    lines = text.split("\n")[:-1]
    kept = "".join(f"{line}\n" for line in lines if _is_kept(line, step)).encode()
    if kept == raw:
        return
    writing.write_bytes(path, kept)


def _is_kept(line: str, step: int) -> bool:
    record = json.loads(line)
    return record["step"] <= step and not record.get("final")
