"""TensorBoard's event file of a run."""

import io
import math
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from segjax.train.saving import saving

# Protocol buffers make their classes when they are loaded: no type checker sees them.
Event, SessionLog = event_pb2.Event, event_pb2.SessionLog  # pyright: ignore
Summary = summary_pb2.Summary  # pyright: ignore

_FLUSH_SECONDS = 20.0


class Board:
    """Scalars and pictures for TensorBoard. Use as a context manager.

    Written in the calling thread. tensorboardX's own SummaryWriter hands events to a
    thread, and waits for ever once that has ended, as it does when the disk is full.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens a new event file.

        Args:
            folder: Made where it is missing; TensorBoard reads all files in it.
        """
        self._path = folder
        with saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # A file is named by the second, and two must not share one.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._flushed = -math.inf

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_) -> None:
        with saving(self._path):
            self._events.close()

    def forget_after(self, step: int) -> None:
        """Makes TensorBoard forget what earlier files say of later steps."""
        start = SessionLog(status=SessionLog.START)
        self._write(Event(session_log=start), step + 1)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        self._add(Summary.Value(tag=name, simple_value=value), step)

    def add_image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 [H, W, 3]."""
        height, width, _ = picture.shape
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "png")
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=png.getvalue(),
        )
        self._add(Summary.Value(tag=name, image=image), step)

    def _add(self, value: Any, step: int) -> None:
        self._write(Event(summary=Summary(value=[value])), step)

    def _write(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        with saving(self._path):
            self._events.write_event(event)
            if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()
