"""TensorBoard's event file of a run."""

import io
import math
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image

from segjax.train.saving import saving

_FLUSH_SECONDS = 20.0


def _messages() -> tuple[Any, Any, Any]:
    """TensorBoard's Event, SessionLog and Summary, whose fields no checker sees.

    Not imported above: tensorboardX loads PyTorch where there is one, half of the start
    of a command that writes no board.
    """
    from tensorboardX.proto import event_pb2, summary_pb2

    session_log = event_pb2.SessionLog  # pyright: ignore
    return event_pb2.Event, session_log, summary_pb2.Summary  # pyright: ignore


class TensorBoardWriter:
    """Scalars and pictures for TensorBoard. Use as a context manager.

    Written in the calling thread. tensorboardX's own SummaryWriter hands events to a
    thread, and waits for ever once that has ended, as it does when the disk is full.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens a new event file.

        Args:
            folder: Made where it is missing; TensorBoard reads all files in it.
        """
        from tensorboardX.event_file_writer import EventsWriter

        self._path = folder
        with saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # A file is named by the second, and two must not share one.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._flushed = -math.inf

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(self, *_) -> None:
        with saving(self._path):
            self._events.close()

    def forget_after(self, step: int) -> None:
        """Makes TensorBoard forget what earlier files say of later steps."""
        event, session_log, _ = _messages()
        start = session_log(status=session_log.START)
        self._write(event(session_log=start), step + 1)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        self._add(step, tag=name, simple_value=value)

    def add_image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 [H, W, 3]."""
        height, width, _ = picture.shape
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "png")
        _, _, summary = _messages()
        image = summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=png.getvalue(),
        )
        self._add(step, tag=name, image=image)

    def _add(self, step: int, **value: Any) -> None:
        event, _, summary = _messages()
        made = summary(value=[summary.Value(**value)])
        self._write(event(summary=made), step)

    def _write(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        with saving(self._path):
            self._events.write_event(event)
            if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()
